using System.Net;
using Fleet.Contracts;
using Fleet.Contracts.Migrations;
using Fleet.Demo.Running;

namespace Fleet.EndToEnd.Tests;

/// <summary>Hosts that are dead, or cut off and taken for dead: real processes, killed or stopped, and a control plane that waits 3 s.</summary>
[Trait("Invariant", "I1")]
[Trait("Invariant", "I4")]
public sealed class MigrationFenceTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    /// <summary>A seal that lay in the spool of a dead agent arrives while the next migration switches: it counts for neither.</summary>
    [Fact]
    public async Task C5_SealThatArrivesInTheNextMigration_DoesNotCountThere()
    {
        await using var moving = await StreamedAsync(MovingVm.StartAsync());
        moving.Vmm.Suspend();
        await moving.BeginSwitchAsync();
        await moving.DiskOf(MovingVm.Source).KnowsAsync(vm => vm.Migration is { State: MigrationStates.Switching }, "the switchover");
        await moving.Fleet.Api!.KillAsync();
        moving.Vmm.Continue();
        await moving.DiskOf(MovingVm.Source).SealedAsync();
        await moving.KillAgentAsync(MovingVm.Source);
        await moving.Fleet.StartApiAsync(Cancelled);
        await moving.Fleet.Client.AbortAsync(MovingVm.Migration, "test", Cancelled);
        await moving.TargetVmm.TerminateAsync();
        await moving.DiskOf(MovingVm.Target).ForgetsAsync();

        await moving.StreamAsync("m-2");
        await moving.BeginSwitchAsync("m-2");
        await moving.ReasonsOfAsync("m-2", "seal-missing");
        await moving.StartAgentAsync(MovingVm.Source);
        await LocalFleet.UntilAsync(
            () => Task.FromResult(moving.Agents[MovingVm.Source].LogTail(200).Contains("stale-migration", StringComparison.Ordinal)),
            "the old seal to be delivered, and refused", moving.Agents[MovingVm.Source], Cancelled);
        await moving.ReasonsOfAsync("m-2", "seal-missing");
        await MovingVm.AssertIsNotRunningAsync(moving.TargetGuest);

        await moving.Fleet.Client.AbortAsync("m-2", "test", Cancelled);
        await SourceGoesOnAsync(moving);
    }

    /// <summary>An operator said of a host that lives, cut off, that it is dead: two guests run until its agent is back, and no longer.</summary>
    [Fact]
    public async Task C6_FalselyFencedSource_StopsItsGuestAsSoonAsItHears()
    {
        await using var moving = await StreamedAsync();
        moving.Agents[MovingVm.Source].Suspend();
        await moving.SilentAsync(MovingVm.Source);
        await moving.Guest.ResumeAsync(Cancelled);
        await FenceAsync(moving);
        await moving.RunsOnTargetAsync();
        Assert.Equal("running", (await moving.Guest.StatusAsync(Cancelled)).State);

        moving.Agents[MovingVm.Source].Continue();
        await LocalFleet.UntilAsync(
            async () => (await moving.Guest.StatusAsync(Cancelled)).State == "held", "the source's agent to stop its guest", moving.Agents[MovingVm.Source], Cancelled);
        moving.Watch.Forgive();
        await moving.AssertSourceIsHeldAsync();
        await LocalFleet.UntilAsync(
            async () => await moving.DiskOf(MovingVm.Source).BarrierAsync() is var (right, closed) && right == closed,
            "the barrier to be closed on disk", moving.Agents[MovingVm.Source], Cancelled);

        await moving.CompleteAsync();
        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
    }

    [Fact]
    public async Task C7_SourceAgentAndVmmDead_OverrideGrantsOnceItsHostIsSilent()
    {
        await using var moving = await StreamedAsync();
        await RefusedAsync("host-online", () => moving.Fleet.Client.SwitchoverAsync(MovingVm.Migration, TimeSpan.Zero, Cancelled, "test"));
        await moving.KillAgentAsync(MovingVm.Source);
        await moving.Vmm.KillAsync();
        await moving.SilentAsync(MovingVm.Source);

        var permit = await FenceAsync(moving);
        await moving.CompleteAsync();
        await moving.StartAgentAsync(MovingVm.Source);

        await moving.AssertOwnerAsync(MovingVm.Target, permit.Epoch);
        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
    }

    [Fact]
    public async Task C7_TargetAgentAndVmmDeadAfterTheGrant_OverrideGivesTheVmBack()
    {
        await using var moving = await StreamedAsync();
        var permit = await moving.GrantWithoutTargetAgentAsync();
        await moving.TargetVmm.KillAsync();
        await moving.SilentAsync(MovingVm.Target);
        await moving.AssertSourceIsHeldAsync();

        Assert.Equal(HttpStatusCode.OK, await moving.Fleet.Client.AbortAsync(MovingVm.Migration, "test", Cancelled, targetFenced: true));

        await SourceGoesOnAsync(moving);
        await moving.StartAgentAsync(MovingVm.Target);
        await SourceGoesOnAsync(moving);
        Assert.True((await moving.Fleet.Client.GetVmAsync(MovingVm.Vm, null, Cancelled)).PlacementEpoch > permit.Epoch);
        Assert.False(moving.DiskOf(MovingVm.Target).HasBarrier);
    }

    [Fact]
    public async Task C7_OwnerDead_RebuildStartsTheVmElsewhereWithFreshRam()
    {
        await using var moving = await MovingVm.StartImpatientAsync();
        await moving.PoisonAsync(20);
        await RefusedAsync("host-online", () => moving.Fleet.Client.RebuildAsync(MovingVm.Vm, MovingVm.Target, "test", Cancelled));
        await moving.KillAgentAsync(MovingVm.Source);
        await moving.Vmm.KillAsync();
        await moving.SilentAsync(MovingVm.Source);

        await moving.Fleet.Client.RebuildAsync(MovingVm.Vm, MovingVm.Target, "test", Cancelled);
        await moving.StartVmmAsync(MovingVm.Target);
        await moving.BootAsync();
        await moving.StartAgentAsync(MovingVm.Source);

        await moving.AssertOwnerAsync(MovingVm.Target);
        await moving.AssertExactlyArmedAsync(moving.Guest);
    }

    private static async Task<Permit> FenceAsync(MovingVm moving) =>
        await moving.Fleet.Client.SwitchoverAsync(MovingVm.Migration, TimeSpan.FromSeconds(10), Cancelled, "test")
            ?? throw new TimeoutException("no permit in 10 s");

    private static async Task RefusedAsync(string code, Func<Task> call) =>
        Assert.Contains(code, (await Assert.ThrowsAsync<HttpRequestException>(call)).Message, StringComparison.Ordinal);

    private static async Task<MovingVm> StreamedAsync(Task<MovingVm>? starting = null)
    {
        var moving = await (starting ?? MovingVm.StartImpatientAsync());
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

    private static async Task SourceGoesOnAsync(MovingVm moving)
    {
        await moving.ResumeSourceAsync();
        await moving.AssertOwnerAsync(MovingVm.Source);
        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
    }
}
