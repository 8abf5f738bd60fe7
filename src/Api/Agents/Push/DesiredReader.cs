using System.Text.Json;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Pages;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Agents.Push;

/// <summary>Reads desired state out of one snapshot.</summary>
public sealed class DesiredReader(DigestCache digests)
{
    /// <summary>More changes than this since the last send, and the whole VM is sent instead.</summary>
    private const int MaximumChanges = 1000;

    public static async Task<List<DesiredRow>> VmsOfAsync(ReadSnapshot snapshot, string host, CancellationToken cancellationToken)
    {
        var concern = await Concern.OfAsync(snapshot.Db, host, null, cancellationToken);
        var ids = concern.Vms.ToArray();
        var vms = await snapshot.Db.Vms.Where(row => row.Host == host || EF.Parameter(ids).Contains(row.Id)).OrderBy(row => row.Id).ToListAsync(cancellationToken);
        return [.. vms.Where(concern.Has).Select(vm => new DesiredRow(vm, concern.Moving.GetValueOrDefault(vm.Id)))];
    }

    /// <summary>Null when there is no such VM, or it does not concern the host.</summary>
    public static async Task<DesiredRow?> FindAsync(ReadSnapshot snapshot, string host, string id, CancellationToken cancellationToken)
    {
        if (await snapshot.Db.Vms.SingleOrDefaultAsync(row => row.Id == id, cancellationToken) is not { } vm)
        {
            return null;
        }

        var concern = await Concern.OfAsync(snapshot.Db, host, id, cancellationToken);
        return concern.Has(vm) ? new DesiredRow(vm, concern.Moving.GetValueOrDefault(id)) : null;
    }

    public async Task<DesiredVm> ReadAsync(ReadSnapshot snapshot, DesiredRow row, string host, CancellationToken cancellationToken)
    {
        var vm = row.Vm;
        var pages = await DigestCache.PagesOf(snapshot.Db, vm.Id).ToListAsync(cancellationToken);
        var digest = digests.TryGet(vm) ?? digests.Put(vm, pages);
        return new DesiredVm(
            vm.Id,
            vm.Host,
            JsonSerializer.Deserialize(vm.Memory, FleetJson.Default.IReadOnlyListMemoryRegion)!,
            row.AttachOf(host),
            vm.MemoryInstance,
            vm.Generation,
            vm.PlacementEpoch,
            digest,
            pages,
            row.Migration,
            vm.Quarantined,
            vm.ResetWanted);
    }

    /// <summary>The set's change since a generation of the same memory instance and definition; null where only the whole VM will do, or the log does not reach back.</summary>
    public async Task<DesiredDelta?> ReadDeltaAsync(ReadSnapshot snapshot, VmRow vm, long from, CancellationToken cancellationToken)
    {
        if (from < await ChangeLog.FloorAsync(snapshot.Db, cancellationToken))
        {
            return null;
        }

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
