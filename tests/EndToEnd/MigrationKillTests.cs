using Fleet.Contracts.Migrations;
using Fleet.Demo.Running;

namespace Fleet.EndToEnd.Tests;

/// <summary>kill -9 of every process, in every state of a migration: one guest at most, and a poisoned page stays one.</summary>
[Trait("Invariant", "I1")]
[Trait("Invariant", "I2")]
[Trait("Invariant", "I6")]
public sealed class MigrationKillTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("marker")]
    [InlineData("trap")]
    public async Task KillTargetAgent_InPreparing_MigrationEndsWell(string policy)
    {
        await using var moving = await StreamedAsync(policy);
        await moving.KillAgentAsync(MovingVm.Target);
        await moving.StartAgentAsync(MovingVm.Target);

        await EndsWellAsync(moving, await moving.PermitAsync());
    }

    [Theory]
    [InlineData("marker")]
    [InlineData("trap")]
    public async Task KillTargetAgent_InSwitching_NewIncarnationAcknowledges(string policy)
    {
        await using var moving = await StreamedAsync(policy);
        await moving.SealWithoutTargetAgentAsync();
        await MovingVm.AssertIsNotRunningAsync(moving.TargetGuest);
        await moving.StartAgentAsync(MovingVm.Target);

        await EndsWellAsync(moving, await moving.PermitAsync());
    }

    /// <summary>C2: the permit is for the VMM process; which incarnation of the agent lifts the barrier does not matter.</summary>
    [Theory]
    [InlineData("marker")]
    [InlineData("trap")]
    public async Task C2_KillTargetAgent_JustBeforeTheGrant_NewIncarnationLifts(string policy)
    {
        await using var moving = await StreamedAsync(policy);
        var permit = await moving.GrantWithoutTargetAgentAsync();
        await MovingVm.AssertIsNotRunningAsync(moving.TargetGuest);
        await moving.AssertSourceIsHeldAsync();
        await moving.StartAgentAsync(MovingVm.Target);

        await EndsWellAsync(moving, permit);
    }

    [Fact]
    public async Task KillTargetAgent_AfterTheLift_MarkersHoldWithoutAnyAgent()
    {
        await using var moving = await StreamedAsync("marker");
        var permit = await moving.PermitAsync();
        await moving.RunsOnTargetAsync();
        await moving.KillAgentAsync(MovingVm.Target);

        await MovingVm.AssertMachineCheckAsync(moving.TargetGuest, 20);
        await moving.StartAgentAsync(MovingVm.Target);

        await EndsWellAsync(moving, permit);
    }

    /// <summary>Trapped pages block while nobody answers, and are machine checks from the next agent.</summary>
    [Theory]
    [InlineData("software")]
    [InlineData("kvm")]
    public async Task KillTargetAgent_AfterTheLiftWithPolicyTrap_AccessBlocksUntilTheNextAgent(string vcpu)
    {
        await using var moving = await StreamedAsync("trap", vcpu);
        var permit = await moving.PermitAsync();
        await moving.RunsOnTargetAsync();
        await moving.KillAgentAsync(MovingVm.Target);

        var read = MovingVm.AssertMachineCheckAsync(moving.TargetGuest, 20);
        Assert.False(read.IsCompleted);
        await moving.StartAgentAsync(MovingVm.Target);
        await read;

        await EndsWellAsync(moving, permit);
    }

    [Fact]
    public async Task KillSourceAgent_InPreparing_NoGrantUntilItIsBackAndSeals()
    {
        await using var moving = await StreamedAsync();
        await moving.KillAgentAsync(MovingVm.Source);
        await moving.BeginSwitchAsync();
        await moving.ReasonsAsync("seal-missing");
        await MovingVm.AssertIsNotRunningAsync(moving.Guest);
        await MovingVm.AssertIsNotRunningAsync(moving.TargetGuest);
        await moving.StartAgentAsync(MovingVm.Source);

        await EndsWellAsync(moving, await moving.PermitAsync());
    }

    /// <summary>A6: the VMM keeps the latch and the disk the seal, whatever becomes of the agent.</summary>
    [Fact]
    public async Task A6_KillSourceAgent_AfterItsSeal_SourceStaysHeldAndTheMigrationEndsWell()
    {
        await using var moving = await StreamedAsync();
        await moving.SealWithoutTargetAgentAsync();
        await moving.KillAgentAsync(MovingVm.Source);
        await moving.AssertSourceIsHeldAsync();
        await moving.StartAgentAsync(MovingVm.Source);
        await moving.AssertSourceIsHeldAsync();
        await moving.StartAgentAsync(MovingVm.Target);

        await EndsWellAsync(moving, await moving.PermitAsync());
    }

    [Theory]
    [InlineData(MigrationStates.Preparing)]
    [InlineData(MigrationStates.Switching)]
    [InlineData(MigrationStates.Granted)]
    [InlineData("lifted")]
    public async Task A7_KillControlPlane_InAnyState_SamePermitAndTheMigrationEndsWell(string state)
    {
        await using var moving = await StreamedAsync();
        Permit? permit = null;
        switch (state)
        {
            case MigrationStates.Switching:
                await moving.SealWithoutTargetAgentAsync();
                break;
            case MigrationStates.Granted:
                permit = await moving.GrantWithoutTargetAgentAsync();
                break;
            case "lifted":
                permit = await moving.PermitAsync();
                await moving.RunsOnTargetAsync();
                break;
        }

        await moving.Fleet.Api!.KillAsync();
        await moving.Fleet.StartApiAsync(Cancelled);
        if (state is MigrationStates.Switching or MigrationStates.Granted)
        {
            await moving.StartAgentAsync(MovingVm.Target);
        }

        var again = await moving.PermitAsync();
        Assert.Equal(permit ?? again, again);
        await EndsWellAsync(moving, again);
        Assert.Equal(again, await moving.PermitAsync());
    }

    /// <summary>Without its agent's acknowledgement nothing is granted. (What becomes of a VMM that takes its place: MigrationLineTests, B5.)</summary>
    [Fact]
    public async Task KillTargetVmm_BeforeTheGrant_NeverGrantedAndTheSourceGoesOn()
    {
        await using var moving = await StreamedAsync();
        await moving.TargetVmm.KillAsync();
        await moving.BeginSwitchAsync();
        await moving.ReasonsAsync("ack-missing");

        await moving.Fleet.Client.AbortAsync(MovingVm.Migration, "test", Cancelled);

        await SourceGoesOnAsync(moving);
    }

    /// <summary>C1: its acknowledgement was good when it was given; the target gives the permit back by itself.</summary>
    [Fact]
    public async Task C1_KillTargetVmm_BetweenItsAcknowledgementAndTheGrant_TargetRenouncesAndTheSourceGoesOn()
    {
        await using var moving = await StreamedAsync();
        await moving.KillAgentAsync(MovingVm.Source);
        await moving.BeginSwitchAsync();
        await moving.ReasonsAsync("seal-missing");
        await moving.TargetVmm.KillAsync();
        await moving.StartAgentAsync(MovingVm.Source);

        await moving.StateAsync(MigrationStates.Aborted);

        await SourceGoesOnAsync(moving);
    }

    [Theory]
    [InlineData("marker")]
    [InlineData("trap")]
    public async Task KillTargetVmm_BetweenTheGrantAndTheLift_TargetRenouncesAndTheSourceGoesOn(string policy)
    {
        await using var moving = await StreamedAsync(policy);
        await moving.GrantWithoutTargetAgentAsync();
        await moving.TargetVmm.KillAsync();
        await moving.AssertSourceIsHeldAsync();
        await moving.StartAgentAsync(MovingVm.Target);

        await moving.StateAsync(MigrationStates.Aborted);

        await SourceGoesOnAsync(moving);
    }

    /// <summary>Nobody can attest any more where the stream ended and that the guest did not run since: never without an operator.</summary>
    [Fact]
    public async Task KillSourceVmm_InSwitchingBeforeTheSeal_NeverGranted()
    {
        await using var moving = await StreamedAsync();
        await moving.KillAgentAsync(MovingVm.Source);
        await moving.BeginSwitchAsync();
        await moving.ReasonsAsync("seal-missing");
        await moving.Vmm.KillAsync();
        await moving.StartAgentAsync(MovingVm.Source);
        await LocalFleet.UntilAsync(
            async () => (await moving.Fleet.Client.GetVmAsync(MovingVm.Vm, null, Cancelled)).Enforcement is [{ Host: MovingVm.Source, Reason: "not-attached" }, ..],
            "the source's agent to say that the VMM is gone", moving.Agents[MovingVm.Source], Cancelled);

        Assert.Null(await moving.Fleet.Client.SwitchoverAsync(MovingVm.Migration, TimeSpan.FromSeconds(1), Cancelled));
        await moving.ReasonsAsync("seal-missing");
        await MovingVm.AssertIsNotRunningAsync(moving.TargetGuest);
        await moving.AssertOwnerAsync(MovingVm.Source);
    }

    private static async Task<MovingVm> StreamedAsync(string policy = "marker", string vcpu = "software")
    {
        var moving = await MovingVm.StartAsync(policy, vcpu);
        try
        {
            await moving.PoisonAsync(20);
            await moving.StreamAsync();
            return moving;
        }
        catch
        {
            await moving.DisposeAsync();
            throw;
        }
    }

    private static async Task EndsWellAsync(MovingVm moving, Permit permit)
    {
        await moving.CompleteAsync();
        await moving.AssertOwnerAsync(MovingVm.Target, permit.Epoch);
        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
    }

    private static async Task SourceGoesOnAsync(MovingVm moving)
    {
        await moving.ResumeSourceAsync();
        await moving.AssertOwnerAsync(MovingVm.Source);
        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
    }
}
