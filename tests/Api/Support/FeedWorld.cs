using Fleet.Api.Agents;
using Fleet.Api.Agents.Push;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Data.Entities;
using Fleet.Data.Pages;
using Fleet.Data.Writing;

namespace Fleet.Api.Tests.Support;

internal enum FeedAct
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

/// <summary>One host, a few VMs, and at most one open feed.</summary>
internal sealed class FeedWorld(TestStore store, PushHub hub, DesiredReader reader, BeforeQuery between, string host)
{
    private Subscriber? _subscriber;
    private DesiredFeed? _feed;
    private bool _hasSnapshot;
    private DesiredView _view = new();
    private DesiredView _held = new();

    public async Task DoAsync(FeedAct act, int vm, int number)
    {
        var id = $"{host}-vm-{vm}";
        switch (act)
        {
            case FeedAct.AddPages:
                await ChangeAsync(id, (scope, row) => PoisonedSet.AddAsync(
                    scope, row, [new NewPage(number, 12, "unknown", "operator", null, 0), .. Large(number)], "test", null));
                break;
            case FeedAct.ClearPage:
                await ChangeAsync(id, async (scope, row) =>
                {
                    if (await PoisonedSet.FindCoveringAsync(scope.Db, id, number) is { } page)
                    {
                        PoisonedSet.Clear(scope, row, page, "test", "test");
                    }
                });
                break;
            case FeedAct.CreateVm:
                if (await store.ReadAsync(async db => await db.Vms.FindAsync(id)) is null)
                {
                    await store.AddVmAsync(id, host);
                }

                break;
            case FeedAct.DeleteVm:
                await ChangeAsync(id, async (scope, row) => await Vms.VmCommands.DeleteAsync(scope, id, "test", mayClear: true, Lists.IfMatch.Absent));
                break;
            case FeedAct.ChangeAttach:
                await ChangeAsync(id, (scope, row) =>
                {
                    row.Attach = $$"""{"kind":"handoff","socket":"/{{number}}"}""";
                    row.Version = scope.Change(ChangeKinds.VmUpdated, ChangeResources.Vm(id), "test");
                    scope.Touch(host, id);
                    return Task.CompletedTask;
                });
                break;
            case FeedAct.MoveAway:
                await ChangeAsync(id, (scope, row) =>
                {
                    row.Host = row.Host == host ? host + "-other" : host;
                    row.PlacementEpoch = scope.Change("test", ChangeResources.Vm(id), "test");
                    scope.Touch(host, id);
                    scope.Touch(host + "-other", id);
                    return Task.CompletedTask;
                });
                break;
            case FeedAct.ChangeOther:
                await store.WriteAsync(scope => Task.FromResult(scope.Change("test", "hosts/x", "test")));
                break;
            case FeedAct.Subscribe:
                Subscribe();
                break;
            case FeedAct.Snapshot when _feed is not null && !_hasSnapshot:
                await SnapshotAsync();
                break;
            case FeedAct.Drain when _hasSnapshot:
                await DrainAsync();
                break;
            case FeedAct.ChangeDuringSnapshot:
                // Subscribed, reading, and then something commits before the reading is done.
                Subscribe();
                between.Arm(number, () => DoAsync((FeedAct)(number % 4), vm, number));
                await SnapshotAsync();
                between.Disarm();
                break;
            case FeedAct.ChangeDuringDrain when _hasSnapshot:
                await DoAsync(FeedAct.AddPages, vm, number);
                between.Arm(number, () => DoAsync((FeedAct)(number % 4), vm, number + 1));
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
