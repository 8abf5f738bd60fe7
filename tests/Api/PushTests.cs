using System.Data.Common;
using CsCheck;
using Fleet.Api.Agents;
using Fleet.Api.Agents.Push;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Data.Entities;
using Fleet.Data.Pages;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore.Diagnostics;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Tests;

[Trait("Invariant", "I3")]
public sealed class PushTests
{
    private const string Host = "host-a";

    private enum Act
    {
        AddPages,
        ClearPage,
        CreateVm,
        DeleteVm,
        ChangeAttach,
        MoveAway,
        ChangeOther,
        Subscribe,
        Snapshot,
        Drain,
        ChangeDuringSnapshot,
        ChangeDuringDrain,
    }

    /// <summary>
    /// Every interleaving of changes with the steps of a stream, above all changes between subscribing and the snapshot, and
    /// reconnects at any point: after a last drain the view equals the database.
    /// </summary>
    [Fact]
    public async Task Feed_UnderRandomInterleavings_EndsEqualToTheDatabase()
    {
        var hub = new PushHub();
        var between = new Between();
        await using var store = await TestStore.StartAsync(
            services => AddFanout(services, hub), configureReader: options => options.AddInterceptors(between));
        var reader = store.Services.GetRequiredService<DesiredReader>();
        var round = 0;
        var genStep = Gen.Select(Gen.Enum<Act>(), Gen.Int[0, 2], Gen.Int[0, 5]);
        await genStep.Array[1, 40].SampleAsync(
            async steps =>
            {
                // A host of its own for every round: rounds do not see each other.
                var world = new World(store, hub, reader, between, $"host-{Interlocked.Increment(ref round)}");
                foreach (var (act, vm, number) in steps)
                {
                    await world.DoAsync(act, vm, number);
                }

                await world.AssertSettlesAsync();
            },
            iter: 150,
            threads: 1);
    }

    /// <summary>The same with writers that do not wait for the stream, over HTTP.</summary>
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
            await foreach (var (_, count) in agent.StreamAsync( new DesiredView(), cut))
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
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(30));
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
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(30));
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
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(30));
        await foreach (var (name, _) in agent.StreamAsync( new DesiredView(), stop))
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
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(30));
        Task? stopping = null;
        await foreach (var (name, _) in agent.StreamAsync( new DesiredView(), stop))
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
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(30));
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

    private static void AddFanout(IServiceCollection services, PushHub hub)
    {
        services.AddSingleton(hub);
        services.AddSingleton<StatusBoard>();
        services.AddSingleton<DigestCache>();
        services.AddSingleton<DesiredIndex>();
        services.AddSingleton<DesiredReader>();
        services.AddSingleton<ICommitObserver, CommitFanout>();
        services.AddSingleton(Options.Create(new Startup.FleetOptions()));
    }

    /// <summary>Lets something happen just before the n-th query of a reader.</summary>
    private sealed class Between : DbCommandInterceptor
    {
        private Func<Task>? _action;
        private int _after;

        public void Arm(int after, Func<Task> action) => (_after, _action) = (after, action);

        public void Disarm() => _action = null;

        public override async ValueTask<InterceptionResult<DbDataReader>> ReaderExecutingAsync(
            DbCommand command, CommandEventData eventData, InterceptionResult<DbDataReader> result, CancellationToken cancellationToken = default)
        {
            if (_action is { } action && _after-- <= 0)
            {
                _action = null;
                await action();
            }

            return result;
        }
    }

    /// <summary>One host, a few VMs, and at most one open feed.</summary>
    private sealed class World(TestStore store, PushHub hub, DesiredReader reader, Between between, string host)
    {
        private Subscriber? _subscriber;
        private DesiredFeed? _feed;
        private bool _hasSnapshot;
        private DesiredView _view = new();
        private DesiredView _held = new();

        public async Task DoAsync(Act act, int vm, int number)
        {
            var id = $"{host}-vm-{vm}";
            switch (act)
            {
                case Act.AddPages:
                    await ChangeAsync(id, (scope, row) => PoisonedSet.AddAsync(
                        scope, row, [new NewPage(number, 12, "unknown", "operator", null, 0), .. Large(number)], "test", null));
                    break;
                case Act.ClearPage:
                    await ChangeAsync(id, async (scope, row) =>
                    {
                        if (await PoisonedSet.FindCoveringAsync(scope.Db, id, number) is { } page)
                        {
                            PoisonedSet.Clear(scope, row, page, "test", "test");
                        }
                    });
                    break;
                case Act.CreateVm:
                    if (await store.ReadAsync(async db => await db.Vms.FindAsync(id)) is null)
                    {
                        await store.AddVmAsync(id, host);
                    }

                    break;
                case Act.DeleteVm:
                    await ChangeAsync(id, async (scope, row) => await Vms.VmCommands.DeleteAsync(scope, id, "test", mayClear: true, Lists.IfMatch.Absent));
                    break;
                case Act.ChangeAttach:
                    await ChangeAsync(id, (scope, row) =>
                    {
                        row.Attach = $$"""{"kind":"handoff","socket":"/{{number}}"}""";
                        row.Version = scope.Change(ChangeKinds.VmUpdated, ChangeResources.Vm(id), "test");
                        scope.Touch(host, id);
                        return Task.CompletedTask;
                    });
                    break;
                case Act.MoveAway:
                    await ChangeAsync(id, (scope, row) =>
                    {
                        row.Host = row.Host == host ? host + "-other" : host;
                        row.PlacementEpoch = scope.Change("test", ChangeResources.Vm(id), "test");
                        scope.Touch(host, id);
                        scope.Touch(host + "-other", id);
                        return Task.CompletedTask;
                    });
                    break;
                case Act.ChangeOther:
                    await store.WriteAsync(scope => Task.FromResult(scope.Change("test", "hosts/x", "test")));
                    break;
                case Act.Subscribe:
                    Subscribe();
                    break;
                case Act.Snapshot when _feed is not null && !_hasSnapshot:
                    await SnapshotAsync();
                    break;
                case Act.Drain when _hasSnapshot:
                    await DrainAsync();
                    break;
                case Act.ChangeDuringSnapshot:
                    // Subscribed, reading, and then something commits before the reading is done.
                    Subscribe();
                    between.Arm(number, () => DoAsync((Act)(number % 4), vm, number));
                    await SnapshotAsync();
                    between.Disarm();
                    break;
                case Act.ChangeDuringDrain when _hasSnapshot:
                    await DoAsync(Act.AddPages, vm, number);
                    between.Arm(number, () => DoAsync((Act)(number % 4), vm, number + 1));
                    await DrainAsync();
                    between.Disarm();
                    break;
            }
        }

        public async Task AssertSettlesAsync()
        {
            if (_feed is null)
            {
                Subscribe();
            }

            if (!_hasSnapshot)
            {
                await SnapshotAsync();
            }

            await DrainAsync();
            Assert.Empty(await _feed!.NextAsync(CancellationToken.None));
            hub.Unsubscribe(_subscriber!);

            await using var snapshot = await store.Contexts.OpenSnapshotAsync(CancellationToken.None);
            var truth = new List<DesiredVm>();
            foreach (var row in await DesiredReader.VmsOfAsync(snapshot, host, CancellationToken.None))
            {
                truth.Add(await reader.ReadAsync(snapshot, row, host, CancellationToken.None));
            }

            _view.AssertEquals(truth);
        }

        private static NewPage[] Large(int number) => number == 5 ? [new NewPage(0, 21, "unknown", "operator", null, 0)] : [];

        private void Subscribe()
        {
            if (_subscriber is not null)
            {
                hub.Unsubscribe(_subscriber);
            }

            _subscriber = hub.Subscribe(host, 1);
            _feed = new DesiredFeed(_subscriber, store.Contexts, reader);
            _held = _hasSnapshot ? _view : _held;
            _hasSnapshot = false;
            _view = new DesiredView();
        }

        private async Task SnapshotAsync()
        {
            // As an agent that comes back does: it says what it held when its last stream broke off.
            var opening = await _feed!.OpenAsync(DesiredDigest.Compute(_held.Vms.Values), CancellationToken.None);
            _view = opening[0].Event == DesiredEvents.Unchanged ? _held : _view;
            Apply(opening);
            _hasSnapshot = true;
        }

        private async Task DrainAsync() => Apply(await _feed!.NextAsync(CancellationToken.None));

        private void Apply(IReadOnlyList<FeedItem> items)
        {
            foreach (var item in items)
            {
                _view.Apply(item);
            }
        }

        private Task<int> ChangeAsync(string id, Func<WriteScope, VmRow, Task> change) => store.WriteAsync(async scope =>
        {
            if (await scope.Db.Vms.FindAsync(id) is { } row)
            {
                await change(scope, row);
            }

            return 0;
        });
    }
}
