using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Data.Entities;
using Fleet.Data.Storage;

namespace Fleet.Api.Agents.Push;

/// <summary>One event of a desired-state stream.</summary>
/// <param name="Revision">The event's id: the state it was read from.</param>
/// <param name="Data">The record that <paramref name="Event"/> carries.</param>
public sealed record FeedItem(string Event, long Revision, object Data);

/// <summary>
/// What one subscriber has been sent, and what comes next. The subscription is older than the snapshot, so whatever commits
/// in between is dirty as well, and sending it again is harmless: nothing is missed.
/// </summary>
public sealed class DesiredFeed(Subscriber subscriber, StoreContexts contexts, DesiredReader reader)
{
    private readonly Dictionary<string, Sent> _sent = new(StringComparer.Ordinal);

    /// <summary>
    /// What a stream opens with: the replace set, or, where the agent holds exactly that, the word that it does. Told from the
    /// rows of the one read transaction that the set itself would be sent from, never from memory of an earlier one.
    /// </summary>
    /// <param name="holds"><see cref="DesiredDigest"/> of what the agent holds; null where it did not say.</param>
    public async Task<IReadOnlyList<FeedItem>> OpenAsync(string? holds, CancellationToken cancellationToken)
    {
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        var items = new List<FeedItem>();
        var vms = new List<DesiredVm>();
        foreach (var row in await DesiredReader.VmsOfAsync(snapshot, subscriber.Host, cancellationToken))
        {
            var vm = await reader.ReadAsync(snapshot, row, subscriber.Host, cancellationToken);
            _sent[vm.Vm] = Sent.Of(row);
            vms.Add(vm);
            items.Add(new FeedItem(DesiredEvents.Vm, snapshot.Revision, vm));
        }

        if (holds is not null && holds == DesiredDigest.Compute(vms))
        {
            return [new FeedItem(DesiredEvents.Unchanged, snapshot.Revision, new Unchanged(snapshot.Revision, holds))];
        }

        items.Insert(0, new FeedItem(DesiredEvents.SnapshotBegin, snapshot.Revision, new SnapshotBegin(snapshot.Revision, vms.Count)));
        var end = new SnapshotEnd(snapshot.Revision, PoisonDigest.ComputeSnapshot(vms.Select(vm => (vm.Vm, vm.Generation, vm.PlacementEpoch, vm.Digest))));
        items.Add(new FeedItem(DesiredEvents.SnapshotEnd, snapshot.Revision, end));
        return items;
    }

    /// <summary>What the dirty VMs have come to since they were sent.</summary>
    public async Task<IReadOnlyList<FeedItem>> NextAsync(CancellationToken cancellationToken)
    {
        var dirty = subscriber.TakeDirty();
        if (dirty.Count == 0)
        {
            return [];
        }

        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        var items = new List<FeedItem>(dirty.Count);
        foreach (var vm in dirty)
        {
            if (await NextAsync(snapshot, vm, cancellationToken) is { } item)
            {
                items.Add(item);
            }
        }

        return items;
    }

    private async Task<FeedItem?> NextAsync(ReadSnapshot snapshot, string vm, CancellationToken cancellationToken)
    {
        var row = await DesiredReader.FindAsync(snapshot, subscriber.Host, vm, cancellationToken);
        if (row is null)
        {
            return _sent.Remove(vm)
                ? new FeedItem(DesiredEvents.VmRemoved, snapshot.Revision, new DesiredVmRemoved(vm, snapshot.Revision))
                : null;
        }

        var now = Sent.Of(row);
        var before = _sent.GetValueOrDefault(vm);
        if (now == before)
        {
            return null;
        }

        _sent[vm] = now;
        if (before is not null
            && before with { Generation = now.Generation } == now
            && await reader.ReadDeltaAsync(snapshot, row.Vm, before.Generation, cancellationToken) is { } delta)
        {
            return new FeedItem(DesiredEvents.Delta, snapshot.Revision, delta);
        }

        return new FeedItem(DesiredEvents.Vm, snapshot.Revision, await reader.ReadAsync(snapshot, row, subscriber.Host, cancellationToken));
    }

    /// <summary>A whole <c>vm</c> is sent when anything but the generation differs.</summary>
    private sealed record Sent(long MemoryInstance, long Generation, long PlacementEpoch, long Version, DesiredMigration? Migration)
    {
        public static Sent Of(DesiredRow row) =>
            new(row.Vm.MemoryInstance, row.Vm.Generation, row.Vm.PlacementEpoch, row.Vm.Version, row.Migration);
    }
}
