using Fleet.Contracts.Migrations;
using Fleet.Demo.Running;

namespace Fleet.EndToEnd.Tests;

/// <summary>Poison follows the VM: real control plane, real agents, real VMMs.</summary>
[Trait("Invariant", "I1")]
public sealed class MigrationTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("marker", "kvm")]
    [InlineData("trap", "kvm")]
    [InlineData("marker", "software")]
    [InlineData("trap", "software")]
    public async Task Migrate_VmWithAPoisonedPage_TargetEnforcesBeforeTheGuestRuns(string policy, string vcpu)
    {
        await using var moving = await MovingVm.StartAsync(policy, vcpu);
        await moving.PoisonAsync(20);

        await moving.StreamAsync();
        var permit = await moving.PermitAsync();
        await moving.CompleteAsync();

        await moving.AssertOwnerAsync(MovingVm.Target, permit.Epoch);
        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
        await LocalFleet.UntilAsync(
            async () => (await moving.Fleet.Client.GetHitsAsync(MovingVm.Vm, Cancelled)).Items
                is [{ Host: MovingVm.Target, Frame: MovingVm.FirstFrame + 20 } hit] && hit.PlacementEpoch == permit.Epoch,
            "the hit on the target", moving.Agents[MovingVm.Target], Cancelled);
    }

    /// <summary>What any of the hosts found stays found, also back where the VM began.</summary>
    [Theory]
    [InlineData("marker", "software")]
    [InlineData("trap", "software")]
    [InlineData("marker", "kvm")]
    public async Task Migrate_AToBToCToA_WithNewErrorsOnEveryHost_EndsWithExactlyTheUnionArmed(string policy, string vcpu)
    {
        await using var moving = await MovingVm.StartAsync(policy, vcpu, "host-a", "host-b", "host-c");
        int[] pages = [20, 21, 40];
        string[] targets = ["host-b", "host-c", "host-a"];
        for (var round = 0; round < pages.Length; round++)
        {
            await moving.PoisonAsync(pages[round]);
            await moving.StreamAsync($"m-{round}", targets[round]);
            await moving.PermitAsync($"m-{round}");
            await moving.CompleteAsync($"m-{round}");
            await moving.StateAsync(MigrationStates.Completed, $"m-{round}");
            await moving.AssertExactlyArmedAsync(moving.Guest, pages[..(round + 1)]);
        }

        await moving.AssertOwnerAsync("host-a");
    }
}
