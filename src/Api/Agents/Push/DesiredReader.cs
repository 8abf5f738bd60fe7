using System.Text.Json;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Data.Entities;
using Fleet.Data.Pages;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Agents.Push;

/// <summary>Reads desired state out of one snapshot. What concerns a host: the VMs it owns.</summary>
public sealed class DesiredReader(DigestCache digests)
{
    /// <summary>More changes than this since the last send, and the whole VM is sent instead.</summary>
    private const int MaximumChanges = 1000;

    public static Task<List<VmRow>> VmsOfAsync(ReadSnapshot snapshot, string host, CancellationToken cancellationToken) =>
        snapshot.Db.Vms.Where(row => row.Host == host).OrderBy(row => row.Id).ToListAsync(cancellationToken);

    /// <summary>Null when there is no such VM, or it does not concern the host.</summary>
    public static Task<VmRow?> FindAsync(ReadSnapshot snapshot, string host, string vm, CancellationToken cancellationToken) =>
        snapshot.Db.Vms.SingleOrDefaultAsync(row => row.Id == vm && row.Host == host, cancellationToken);

    public async Task<DesiredVm> ReadAsync(ReadSnapshot snapshot, VmRow vm, CancellationToken cancellationToken)
    {
        var pages = await DigestCache.PagesOf(snapshot.Db, vm.Id).ToListAsync(cancellationToken);
        var digest = digests.TryGet(vm) ?? digests.Put(vm, pages);
        return new DesiredVm(
            vm.Id,
            vm.Host,
            JsonSerializer.Deserialize(vm.Memory, FleetJson.Default.IReadOnlyListMemoryRegion)!,
            JsonSerializer.Deserialize(vm.Attach, FleetJson.Default.VmAttach)!,
            vm.MemoryInstance,
            vm.Generation,
            vm.PlacementEpoch,
            digest,
            pages);
    }

    /// <summary>The set's change since a generation of the same memory instance and definition; null where only the whole VM will do.</summary>
    public async Task<DesiredDelta?> ReadDeltaAsync(ReadSnapshot snapshot, VmRow vm, long from, CancellationToken cancellationToken)
    {
        var resource = ChangeResources.Vm(vm.Id);
        var payloads = await snapshot.Db.Changes
            .Where(row => row.Resource == resource && row.Revision > from && row.Revision <= vm.Generation)
            .Where(row => row.Kind == ChangeKinds.PagesAdded || row.Kind == ChangeKinds.PagesCleared)
            .OrderBy(row => row.Revision)
            .Select(row => row.Payload)
            .Take(MaximumChanges + 1)
            .ToListAsync(cancellationToken);
        if (payloads.Count > MaximumChanges)
        {
            return null;
        }

        var fold = new DeltaFold();
        foreach (var payload in payloads)
        {
            fold.Apply(PagePayload.Parse(payload!));
        }

        var digest = await digests.OfAsync(snapshot.Db, vm, cancellationToken);
        return new DesiredDelta(vm.Id, vm.MemoryInstance, from, vm.Generation, digest, fold.Added, fold.Cleared);
    }
}
