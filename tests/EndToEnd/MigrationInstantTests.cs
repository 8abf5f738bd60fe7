using Fleet.Contracts.Migrations;
using Fleet.Demo.Running;

namespace Fleet.EndToEnd.Tests;

/// <summary>Poison that is found up to the instant of the move is enforced before the guest runs again, and nobody runs it in between.</summary>
[Trait("Invariant", "I1")]
[Trait("Invariant", "I2")]
public sealed class MigrationInstantTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("marker")]
    [InlineData("trap")]
    public async Task MemoryError_OnTheSourceBetweenStreamAndSwitchover_IsArmedOnTheTarget(string policy)
    {
        await using var moving = await MovingVm.StartAsync(policy);
        await moving.PoisonAsync(20);
        await moving.StreamAsync();
        await MovingVm.FailMemoryAsync(moving.Guest, 30);
        await moving.ReportedAsync(30);

        await moving.PermitAsync();
        await moving.CompleteAsync();

        await moving.AssertExactlyArmedAsync(moving.Guest, 20, 30);
    }

    /// <summary>The acknowledgement of the smaller set does not open the gate for the larger one.</summary>
    [Theory]
    [InlineData("marker")]
    [InlineData("trap")]
    public async Task A9_Add_ByAnOperatorInSwitchingAfterTheAcknowledgement_IsArmedOnTheTarget(string policy)
    {
        await using var moving = await MovingVm.StartAsync(policy);
        await moving.PoisonAsync(20);
        await moving.StreamAsync();
        await moving.KillAgentAsync(MovingVm.Source);
        await moving.BeginSwitchAsync();
        await moving.ReasonsAsync("seal-missing");

        await moving.AddByOperatorAsync(31);
        await moving.StartAgentAsync(MovingVm.Source);
        var permit = await moving.PermitAsync();
        await moving.CompleteAsync();

        Assert.Equal((await moving.Fleet.Client.GetVmAsync(MovingVm.Vm, null, Cancelled)).Generation, permit.Generation);
        await moving.AssertExactlyArmedAsync(moving.Guest, 20, 31);
    }

    /// <summary>After the seal, with the target's agent away: its first acknowledgement is of the larger set.</summary>
    [Fact]
    public async Task Add_ByAnOperatorInSwitchingAfterTheSeal_IsArmedOnTheTarget()
    {
        await using var moving = await MovingVm.StartAsync();
        await moving.PoisonAsync(20);
        await moving.StreamAsync();
        await moving.SealWithoutTargetAgentAsync();

        await moving.AddByOperatorAsync(32);
        await moving.StartAgentAsync(MovingVm.Target);
        await moving.PermitAsync();
        await moving.CompleteAsync();

        await moving.AssertExactlyArmedAsync(moving.Guest, 20, 32);
    }

    [Theory]
    [InlineData("marker")]
    [InlineData("trap")]
    public async Task Add_ByAnOperatorBetweenTheGrantAndTheLift_IsArmedBeforeTheGuestRuns(string policy)
    {
        await using var moving = await MovingVm.StartAsync(policy);
        await moving.PoisonAsync(20);
        await moving.StreamAsync();
        await moving.GrantWithoutTargetAgentAsync();

        await moving.AddByOperatorAsync(33);
        await moving.StartAgentAsync(MovingVm.Target);
        await moving.RunsOnTargetAsync();

        await MovingVm.AssertMachineCheckAsync(moving.TargetGuest, 33);
        await moving.CompleteAsync();
        await moving.AssertExactlyArmedAsync(moving.Guest, 20, 33);
    }

    /// <summary>What the source's VMM learned before the seal was found while the right was held, whenever its agent hears of it.</summary>
    [Fact]
    public async Task B2_MemoryError_KnownToTheVmmBeforeTheSealWhileItsAgentIsAway_IsArmedOnTheTarget()
    {
        await using var moving = await MovingVm.StartAsync();
        await moving.PoisonAsync(20);
        await moving.StreamAsync();
        await moving.KillAgentAsync(MovingVm.Source);
        await moving.BeginSwitchAsync();
        await MovingVm.FailMemoryAsync(moving.Guest, 34);
        await moving.StartAgentAsync(MovingVm.Source);

        await moving.PermitAsync();
        await moving.CompleteAsync();

        await moving.ReportedAsync(34);
        await moving.AssertExactlyArmedAsync(moving.Guest, 20, 34);
    }

    /// <summary>The target's own memory fails under what it acknowledged: it acknowledges again, with the page as lost.</summary>
    [Fact]
    public async Task B5_MemoryError_OnTheTargetAfterItsAcknowledgement_IsArmedBeforeTheGuestRuns()
    {
        await using var moving = await MovingVm.StartAsync();
        await moving.PoisonAsync(20);
        await moving.StreamAsync();
        await moving.KillAgentAsync(MovingVm.Source);
        await moving.BeginSwitchAsync();
        await moving.ReasonsAsync("seal-missing");

        await MovingVm.FailMemoryAsync(moving.TargetGuest, 35);
        await LocalFleet.UntilAsync(
            async () => (await moving.TargetGuest.StatusAsync(Cancelled)).PendingEvents == 0, "the target's agent to take the report", null, Cancelled);
        await moving.StartAgentAsync(MovingVm.Source);
        await moving.PermitAsync();
        await moving.CompleteAsync();

        await moving.AssertExactlyArmedAsync(moving.Guest, 20, 35);
    }

    /// <summary>A1: an orchestrator that timed out has the source run again, in vain from the seal on.</summary>
    [Fact]
    public async Task A1_Resume_OfTheSourceAfterItsSeal_IsRefusedThenAndForever()
    {
        await using var moving = await MovingVm.StartAsync();
        await moving.PoisonAsync(20);
        await moving.StreamAsync();
        await moving.SealWithoutTargetAgentAsync();

        await moving.AssertSourceIsHeldAsync();
        await MovingVm.AssertIsNotRunningAsync(moving.Guest);
        await moving.StartAgentAsync(MovingVm.Target);
        await moving.PermitAsync();
        await moving.AssertSourceIsHeldAsync();
        await moving.RunsOnTargetAsync();
        await moving.AssertSourceIsHeldAsync();
        await MovingVm.AssertIsNotRunningAsync(moving.Guest);

        await moving.CompleteAsync();
        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
    }

    /// <summary>A10, B1: the stream is older than the guest, so it is not sealed. The agent stops the guest all the same.</summary>
    [Fact]
    public async Task A10_B1_Resume_OfTheSourceBetweenStreamAndSwitchover_NeverGranted()
    {
        await using var moving = await MovingVm.StartAsync();
        await moving.PoisonAsync(20);
        await moving.StreamAsync();
        await moving.Guest.ResumeAsync(Cancelled);

        await moving.BeginSwitchAsync();
        await LocalFleet.UntilAsync(
            async () => (await moving.Guest.StatusAsync(Cancelled)).State == "held", "the source's agent to hold the guest", null, Cancelled);

        Assert.Null(await moving.Fleet.Client.SwitchoverAsync(MovingVm.Migration, TimeSpan.FromSeconds(1), Cancelled));
        await moving.ReasonsAsync("seal-missing");
        await moving.Fleet.Client.AbortAsync(MovingVm.Migration, "test", Cancelled);
        await moving.StateAsync(MigrationStates.Aborted);
        await moving.ResumeSourceAsync();
        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
    }
}
