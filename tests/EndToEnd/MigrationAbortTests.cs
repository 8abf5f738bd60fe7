using System.Net;
using Fleet.Contracts.Migrations;

namespace Fleet.EndToEnd.Tests;

/// <summary>A migration is given up, in each of its states: exactly one guest goes on, fully armed.</summary>
[Trait("Invariant", "I1")]
[Trait("Invariant", "I2")]
public sealed class MigrationAbortTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("marker")]
    [InlineData("trap")]
    public async Task Abort_InPreparing_SourceGoesOnAndTheTargetNeverRuns(string policy)
    {
        await using var moving = await MovingVm.StartAsync(policy);
        await moving.PoisonAsync(20);
        await moving.StreamAsync();

        Assert.Equal(HttpStatusCode.OK, await moving.Fleet.Client.AbortAsync(MovingVm.Migration, "test", Cancelled));

        await SourceGoesOnAsync(moving);
    }

    [Fact]
    public async Task Abort_InSwitchingBeforeTheSeal_SourceGoesOnUnderANewEpoch()
    {
        await using var moving = await MovingVm.StartAsync();
        await moving.PoisonAsync(20);
        await moving.StreamAsync();
        var epoch = (await moving.Fleet.Client.GetVmAsync(MovingVm.Vm, null, Cancelled)).PlacementEpoch;
        await moving.KillAgentAsync(MovingVm.Source);
        await moving.BeginSwitchAsync();
        await moving.ReasonsAsync("seal-missing");

        Assert.Equal(HttpStatusCode.OK, await moving.Fleet.Client.AbortAsync(MovingVm.Migration, "test", Cancelled));

        Assert.True((await moving.Fleet.Client.GetVmAsync(MovingVm.Vm, null, Cancelled)).PlacementEpoch > epoch);
        await moving.StartAgentAsync(MovingVm.Source);
        await SourceGoesOnAsync(moving);
    }

    /// <summary>A2: what was sealed stays sealed; the source runs again only under the epoch that the abort made.</summary>
    [Theory]
    [InlineData("marker")]
    [InlineData("trap")]
    public async Task A2_Abort_InSwitchingAfterTheSeal_SourceIsHeldUntilThenAndGoesOnUnderANewEpoch(string policy)
    {
        await using var moving = await MovingVm.StartAsync(policy);
        await moving.PoisonAsync(20);
        await moving.StreamAsync();
        await moving.SealWithoutTargetAgentAsync();
        await moving.AssertSourceIsHeldAsync();

        Assert.Equal(HttpStatusCode.OK, await moving.Fleet.Client.AbortAsync(MovingVm.Migration, "test", Cancelled));

        await SourceGoesOnAsync(moving);
        await moving.StartAgentAsync(MovingVm.Target);
        await SourceGoesOnAsync(moving);
    }

    /// <summary>A4: after the grant only the target can give it back.</summary>
    [Theory]
    [InlineData("marker")]
    [InlineData("trap")]
    public async Task A4_Abort_AfterTheGrantBeforeTheLift_TargetRenouncesAndTheSourceGoesOn(string policy)
    {
        await using var moving = await MovingVm.StartAsync(policy);
        await moving.PoisonAsync(20);
        await moving.StreamAsync();
        var permit = await moving.GrantWithoutTargetAgentAsync();

        Assert.Equal(HttpStatusCode.Accepted, await moving.Fleet.Client.AbortAsync(MovingVm.Migration, "test", Cancelled));

        await moving.AssertSourceIsHeldAsync();
        await moving.AssertOwnerAsync(MovingVm.Target, permit.Epoch);
        await moving.StartAgentAsync(MovingVm.Target);
        await moving.StateAsync(MigrationStates.Aborted);
        await SourceGoesOnAsync(moving);
        Assert.True((await moving.Fleet.Client.GetVmAsync(MovingVm.Vm, null, Cancelled)).PlacementEpoch > permit.Epoch);
    }

    [Fact]
    public async Task Abort_AfterTheLift_IsRefusedAndTheTargetStays()
    {
        await using var moving = await MovingVm.StartAsync();
        await moving.PoisonAsync(20);
        await moving.StreamAsync();
        var permit = await moving.PermitAsync();
        await moving.RunsOnTargetAsync();

        // Until `lifted` has arrived the answer is 202, and comes too late for the target all the same.
        await Demo.Running.LocalFleet.UntilAsync(IsRefusedAsync, "the abort to be refused", null, Cancelled);

        await moving.AssertSourceIsHeldAsync();
        await moving.CompleteAsync();
        await moving.AssertOwnerAsync(MovingVm.Target, permit.Epoch);
        await moving.AssertExactlyArmedAsync(moving.Guest, 20);

        async Task<bool> IsRefusedAsync()
        {
            try
            {
                return await moving.Fleet.Client.AbortAsync(MovingVm.Migration, "test", Cancelled) != HttpStatusCode.Accepted;
            }
            catch (HttpRequestException exception) when (exception.Message.Contains("already-lifted", StringComparison.Ordinal))
            {
                return true;
            }
        }
    }

    /// <summary>After an abort the VM is as movable as before, and to the same host, with a VMM of its own.</summary>
    [Fact]
    public async Task Abort_ThenMigrateAgain_EndsWithTheTargetArmed()
    {
        await using var moving = await MovingVm.StartAsync();
        await moving.PoisonAsync(20);
        await moving.StreamAsync();
        await moving.SealWithoutTargetAgentAsync();
        await moving.Fleet.Client.AbortAsync(MovingVm.Migration, "test", Cancelled);
        await moving.TargetVmm.TerminateAsync();
        await moving.StartAgentAsync(MovingVm.Target);
        await moving.ResumeSourceAsync();
        await moving.PoisonAsync(21);

        await moving.StreamAsync("m-2");
        await moving.PermitAsync("m-2");
        await moving.CompleteAsync("m-2");

        await moving.AssertExactlyArmedAsync(moving.Guest, 20, 21);
    }

    private static async Task SourceGoesOnAsync(MovingVm moving)
    {
        await moving.ResumeSourceAsync();
        await moving.AssertOwnerAsync(MovingVm.Source);
        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
        await MovingVm.AssertIsNotRunningAsync(moving.TargetGuest);
        await moving.StateAsync(MigrationStates.Aborted);
    }
}
