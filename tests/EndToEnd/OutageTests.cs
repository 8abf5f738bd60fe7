using Fleet.Contracts;
using Fleet.Contracts.Pages;
using Fleet.Demo.Running;

namespace Fleet.EndToEnd.Tests;

/// <summary>The control plane is away while much happens: after it returns everything is there, once.</summary>
public sealed class OutageTests
{
    private const int Frames = 25;
    private const int Touches = 20;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    /// <summary>With an agent that is killed twice meanwhile: what was durable in its spool, and what its VMM had to send again, is neither lost nor doubled.</summary>
    [Fact]
    [Trait("Invariant", "I5")]
    [Trait("Invariant", "I8")]
    public async Task ControlPlaneAway_DuringATestFullOfHits_EveryHitIsThereOnceAfterwards()
    {
        await using var one = await OneVm.StartAsync();
        var frames = Enumerable.Range(0, Frames).Select(i => 5000L + (2 * i)).ToArray();
        await one.PoisonAsync(frames);
        await one.ArmedAsync();

        await one.Fleet.Api!.KillAsync();
        for (var round = 0; round < Touches; round++)
        {
            foreach (var frame in frames)
            {
                await one.AssertMachineCheckAsync(frame);
            }

            // Events are under way, spooled or acknowledged, as it happens.
            if (round is 6 or 13)
            {
                await one.RestartAgentAsync();
            }
        }

        await one.Guest.MemoryErrorAsync(FrameMath.AddressOf(7000), 12, PageClasses.Srao, Cancelled);
        await one.Fleet.StartApiAsync(Cancelled);

        await LocalFleet.UntilAsync(
            async () => await one.Fleet.CountHitsAsync(OneVm.Vm, Cancelled) >= Frames * Touches && (await one.Fleet.Client.GetPagesAsync(OneVm.Vm, Cancelled)).Items.Any(page => page.Frame == 7000),
            "everything that happened", one.Agent, Cancelled);
        await one.ArmedAsync();
        // A marker behind everything that was spooled before it: nothing more is on its way.
        await one.AssertMachineCheckAsync(7000);
        await LocalFleet.UntilAsync(async () => (await one.Fleet.AllHitsAsync(OneVm.Vm, Cancelled)).Any(hit => hit.Frame == 7000), "the last hit", one.Agent, Cancelled);
        var hits = await one.Fleet.AllHitsAsync(OneVm.Vm, Cancelled);
        Assert.Equal(
            [.. frames.Select(frame => (frame, (long)Touches)), (7000, 1)],
            hits.GroupBy(hit => hit.Frame).Select(group => (group.Key, group.Sum(hit => hit.Count))).Order());
    }
}
