using System.Collections.Concurrent;
using Fleet.Api.Agents.Push;
using Fleet.Api.Restore;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Agents;

/// <param name="Digest">Digest of the set at that generation.</param>
public sealed record DesiredState(string Vm, long MemoryInstance, long Generation, string Digest);

/// <param name="StatementRequired">Heartbeats are refused until the host has stated what it holds.</param>
public sealed record HostDesired(bool StatementRequired, IReadOnlyDictionary<string, DesiredState> Vms);

/// <summary>For each host the numbers that heartbeats are compared with; read again only after a commit that concerns the host.</summary>
public sealed class DesiredIndex(StoreContexts contexts, DigestCache digests)
{
    private readonly ConcurrentDictionary<string, Entry> _hosts = new(StringComparer.Ordinal);

    public void Invalidate(string host)
    {
        if (_hosts.TryGetValue(host, out var entry))
        {
            Interlocked.Increment(ref entry.Stamp);
        }
    }

    public void InvalidateAll()
    {
        foreach (var host in _hosts.Keys)
        {
            Invalidate(host);
        }
    }

    public async ValueTask<HostDesired> OfAsync(string host, CancellationToken cancellationToken)
    {
        var entry = _hosts.GetOrAdd(host, static _ => new Entry());
        var stamp = Volatile.Read(ref entry.Stamp);
        if (entry.Read is { } read && read.Stamp == stamp)
        {
            return read.Desired;
        }

        // The stamp is from before the snapshot: a commit in between makes the next heartbeat read again.
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        var vms = new Dictionary<string, DesiredState>(StringComparer.Ordinal);
        foreach (var (vm, _) in await DesiredReader.VmsOfAsync(snapshot, host, cancellationToken))
        {
            var digest = await digests.OfAsync(snapshot.Db, vm, cancellationToken);
            vms[vm.Id] = new DesiredState(vm.Id, vm.MemoryInstance, vm.Generation, digest);
        }

        var row = await snapshot.Db.Hosts.SingleOrDefaultAsync(row => row.Id == host, cancellationToken);
        var desired = new HostDesired(Admission.IsStatementRequired(row, snapshot.Revision), vms);
        entry.Read = new Reading(stamp, desired);
        return desired;
    }

    private sealed class Entry
    {
        public int Stamp;
        private Reading? _read;

        public Reading? Read
        {
            get => Volatile.Read(ref _read);
            set => Volatile.Write(ref _read, value);
        }
    }

    private sealed record Reading(int Stamp, HostDesired Desired);
}
