using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;

namespace Fleet.Api.Tests;

[Trait("Invariant", "I3")]
public sealed class PushTests
{
    private const string Host = "host-a";

    /// <summary>The interleavings of PushFeedTests, with writers that do not wait for the stream, over HTTP.</summary>
    [Fact]
    public async Task Stream_WithConcurrentWritersAndReconnects_EndsEqualToTheDatabase()
    {
        await using var api = await ApiHost.StartAsync(args: ["--Fleet:BookmarkInterval=00:00:01"]);
        var agent = await (await api.EnrolAsync(Host)).ClaimAsync();
        for (var vm = 0; vm < 3; vm++)
        {
            await api.Admin.CreateVmAsync($"vm-{vm}", Host);
        }

        var writers = Enumerable.Range(0, 6).Select(writer => Task.Run(async () =>
        {
            var random = new Random(writer);
            for (var number = 0; number < 30; number++)
            {
                var vm = $"vm-{random.Next(3)}";
                if (random.Next(4) == 0)
                {
                    await api.Admin.DeleteAsync(new Uri(Routes.Page(vm, random.Next(60)) + "?reason=test", UriKind.Relative));
                }
                else
                {
                    await api.Admin.AddPagesAsync(vm, new Contracts.Pages.PageReport(random.Next(60), 12));
                }
            }
        })).ToArray();

        // Connections cut at arbitrary points while the writers are at work, then one that stays.
        for (var connection = 0; connection < 5; connection++)
        {
            using var cut = new CancellationTokenSource();
            await foreach (var (_, count) in agent.StreamAsync(new DesiredView(), cut))
            {
                if (count > 10 * connection || Array.TrueForAll(writers, writer => writer.IsCompleted))
                {
                    await cut.CancelAsync();
                }
            }
        }

        await Task.WhenAll(writers);
        var truth = new List<DesiredVm>();
        for (var vm = 0; vm < 3; vm++)
        {
            truth.Add(await agent.DesiredAsync($"vm-{vm}"));
        }

        var view = new DesiredView();
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        await foreach (var (name, _) in agent.StreamAsync( view, stop))
        {
            if (name is not (DesiredEvents.SnapshotBegin or DesiredEvents.Vm) && view.Vms.Count == 3
                && truth.TrueForAll(vm => view.Vms[vm.Vm].Generation == vm.Generation))
            {
                await stop.CancelAsync();
            }
        }

        view.AssertEquals(truth);
    }

    [Fact]
    public async Task Stream_WhileChangesCommit_CarriesDeltasThatChain()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync(Host)).ClaimAsync();
        await api.Admin.CreateVmAsync("vm-1", Host);
        var view = new DesiredView();
        var names = new List<string>();
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        await foreach (var (name, _) in agent.StreamAsync( view, stop))
        {
            names.Add(name);
            switch (name)
            {
                case DesiredEvents.SnapshotEnd:
                    await api.Admin.AddPagesAsync("vm-1", new(512, 12), new(513, 12));
                    break;
                case DesiredEvents.Delta when view.Vms["vm-1"].Pages.Count == 2:
                    await api.Admin.AddPagesAsync("vm-1", new Contracts.Pages.PageReport(512, 21));
                    break;
                case DesiredEvents.Delta:
                    await api.Admin.DeleteAsync(new Uri(Routes.Vm("vm-1"), UriKind.Relative), stop.Token);
                    break;
                case DesiredEvents.VmRemoved:
                    await stop.CancelAsync();
                    break;
            }
        }

        Assert.Equal(["snapshot-begin", "vm", "snapshot-end", "delta", "delta", "vm-removed"], names);
        Assert.Empty(view.Vms);
    }

    [Fact]
    public async Task Stream_WhenANewerAgentClaims_EndsAndCannotBeOpenedAgain()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync(Host)).ClaimAsync();
        var old = agent.Incarnation;
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        await foreach (var (name, _) in agent.StreamAsync(new DesiredView(), stop))
        {
            if (name == DesiredEvents.SnapshotEnd)
            {
                await agent.ClaimAsync();
            }
        }

        Assert.False(stop.IsCancellationRequested, "The stream did not end by itself.");
        var again = await agent.Client.GetAsync(new Uri(Routes.Desired(Host, old), UriKind.Relative), TestContext.Current.CancellationToken);
        await again.ProblemAsync(System.Net.HttpStatusCode.Conflict, "agent-superseded");
    }

    [Fact]
    public async Task Stream_OnShutdown_EndsAtOnce()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync(Host)).ClaimAsync();
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        Task? stopping = null;
        await foreach (var (name, _) in agent.StreamAsync(new DesiredView(), stop))
        {
            stopping ??= api.StopAsync();
        }

        Assert.False(stop.IsCancellationRequested, "The stream did not end by itself.");
        await stopping!;
    }

    [Fact]
    public async Task Stream_Idle_CarriesBookmarksAtTheNewestRevision()
    {
        await using var api = await ApiHost.StartAsync(args: ["--Fleet:BookmarkInterval=00:00:01"]);
        var agent = await (await api.EnrolAsync(Host)).ClaimAsync();
        long before = 0;
        var view = new DesiredView();
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        await foreach (var (name, _) in agent.StreamAsync( view, stop))
        {
            if (name == DesiredEvents.SnapshotEnd)
            {
                before = (await api.Admin.CreateVmAsync("vm-elsewhere", null)).Version;
            }
            else if (name == DesiredEvents.Bookmark && view.Revision >= before)
            {
                await stop.CancelAsync();
            }
        }

        Assert.Equal(before, view.Revision);
    }
}
