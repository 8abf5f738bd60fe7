using Fleet.Contracts;
using Fleet.Contracts.Pages;

namespace Fleet.EndToEnd.Tests;

/// <summary>The control plane dies under a running fleet.</summary>
public sealed class ControlPlaneCrashTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    [Trait("Invariant", "I6")]
    [Trait("Invariant", "I8")]
    public async Task Kill_ControlPlane_AgentEnforcesOnAndWhatHappenedMeanwhileArrivesOnce()
    {
        await using var one = await OneVm.StartAsync();
        await one.PoisonAsync(5000);
        await one.ArmedAsync();

        await one.Fleet.Api!.KillAsync();
        await one.AssertMachineCheckAsync(5000);
        await one.AssertMachineCheckAsync(5000);
        await one.Guest.MemoryErrorAsync(FrameMath.AddressOf(7000), 12, PageClasses.Srao, Cancelled);
        await one.Fleet.StartApiAsync(Cancelled);

        var hits = await one.HitsAsync(2);
        Assert.Equal(2, hits.Sum(hit => hit.Count));
        await Demo.Running.LocalFleet.UntilAsync(
            async () => (await one.Fleet.Client.GetPagesAsync(OneVm.Vm, Cancelled)).Items.Any(page => page.Frame == 7000), "the report", one.Agent, Cancelled);
        await one.ArmedAsync();
        await one.AssertMachineCheckAsync(7000);
    }

    [Fact]
    [Trait("Invariant", "I6")]
    public async Task Start_AgentWhileTheControlPlaneIsAway_TakesOverAndEnforcesTheLastKnownSet()
    {
        await using var one = await OneVm.StartAsync();
        await one.PoisonAsync(5000, 5002);
        await one.ArmedAsync();
        await one.Agent.KillAsync();
        await one.Fleet.Api!.KillAsync();

        // The agent's own start waits for a claim, so it is started by hand here.
        await using var agent = Demo.Running.ChildProcess.Start(
            Demo.Running.Programs.HostAgent, Path.Combine(one.Fleet.Root, "lonely.log"),
            [$"--Agent:Host={OneVm.Host}", $"--Agent:ControlPlane={one.Fleet.Address}", $"--Agent:StateFolder={Path.Combine(one.Fleet.Root, OneVm.Host)}"]);
        await Demo.Running.LocalFleet.UntilAsync(
            () => Task.FromResult(File.ReadAllText(agent.LogPath).Contains("the kernel confirmed every page", StringComparison.Ordinal)), "the takeover", agent, Cancelled);

        // A marker lost meanwhile (a fresh page in its place is what the guest must never see) is put back by this agent alone.
        await one.AssertMachineCheckAsync(5000);
        await one.AssertMachineCheckAsync(5002);
        await one.Fleet.StartApiAsync(Cancelled);
        await one.ArmedAsync();
        Assert.Equal(2, (await one.HitsAsync(2)).Sum(hit => hit.Count));
    }

    [Fact]
    [Trait("Invariant", "I5")]
    public async Task Kill_ControlPlaneRepeatedlyUnderReports_EveryHitCountsOnce()
    {
        await using var one = await OneVm.StartAsync();
        await one.PoisonAsync([.. Enumerable.Range(0, 20).Select(i => 5000L + i)]);
        await one.ArmedAsync();
        for (var round = 0; round < 5; round++)
        {
            for (var i = 0; i < 20; i++)
            {
                await one.AssertMachineCheckAsync(5000 + i);
            }

            await one.Fleet.Api!.KillAsync();
            await one.Fleet.StartApiAsync(Cancelled);
        }

        var hits = await one.HitsAsync(100);
        Assert.Equal(100, hits.Sum(hit => hit.Count));
        Assert.Equal(Enumerable.Repeat(5L, 20), hits.GroupBy(hit => hit.Frame).Select(group => group.Sum(hit => hit.Count)));
    }
}
