using Fleet.Api.Agents;
using Fleet.Api.Lists;
using Fleet.Api.Vms;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Pages;

public sealed class PageReader(StoreContexts contexts, Enforcement enforcement, StatusBoard board)
{
    /// <summary>Null when there is no such VM.</summary>
    /// <param name="after">Frame of the last page already read; -1 from the start.</param>
    /// <param name="since">Only pages added after this generation; 0 for all.</param>
    public async Task<PageList?> ListAsync(string vmId, long after, long since, int limit, CancellationToken cancellationToken)
    {
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        var db = snapshot.Db;
        if (await db.Vms.SingleOrDefaultAsync(row => row.Id == vmId, cancellationToken) is not { } vm)
        {
            return null;
        }

        var rows = await db.Pages
            .Where(row => row.Vm == vmId && row.Frame > after && row.AddedGeneration > since)
            .OrderBy(row => row.Frame)
            .Take(limit + 1)
            .ToListAsync(cancellationToken);
        var shown = rows.Take(limit).ToList();
        var onHosts = new List<Func<PoisonedPageRow, PageOnHost>>();
        foreach (var host in await ConcernedHosts.OfAsync(db, vm, cancellationToken))
        {
            onHosts.Add(await HostViewAsync(db, vm, host, shown, cancellationToken));
        }

        var items = shown.Select(row => ToResource(row, [.. onHosts.Select(onHost => onHost(row))])).ToList();
        return new PageList(vm.Generation, items, rows.Count > limit ? Cursor.Of(rows[limit - 1].Frame) : null);
    }

    /// <summary>Null when there is no such VM.</summary>
    public async Task<MemoryLayout?> LayoutOfAsync(string vmId, CancellationToken cancellationToken)
    {
        await using var db = contexts.OpenReader();
        return await db.Vms.Where(row => row.Id == vmId).Select(row => row.Memory).SingleOrDefaultAsync(cancellationToken) is { } memory
            ? MemoryLayout.Parse(memory)
            : null;
    }

    private async Task<Func<PoisonedPageRow, PageOnHost>> HostViewAsync(
        FleetDbContext db, VmRow vm, string host, List<PoisonedPageRow> rows, CancellationToken cancellationToken)
    {
        var vmState = (await enforcement.OfAsync(db, vm, host, cancellationToken)).State;
        var status = board.StatusOf(host, vm.Id);
        var exceptions = new Dictionary<long, PageException>();
        foreach (var exception in status?.Exceptions ?? [])
        {
            exceptions[exception.Frame] = exception;
        }

        var hits = await HitFramesAsync(db, vm, host, rows, cancellationToken);
        return row => StateOf(row, host, vmState, status, exceptions.GetValueOrDefault(row.Frame), hits);
    }

    private static PageOnHost StateOf(
        PoisonedPageRow row, string host, string vmState, VmStatus? status, PageException? exception, SortedSet<long> hits)
    {
        if (vmState == EnforcementStates.Unknown)
        {
            return new PageOnHost(host, PageStates.Unknown, null, null);
        }

        if (exception is not null && Enforcement.IsFailed(exception))
        {
            return new PageOnHost(host, PageStates.Failed, null, exception.Reason);
        }

        // Only a set that is confirmed as a whole, with its digest, makes any page of it armed.
        if (vmState != EnforcementStates.Armed)
        {
            var failed = vmState == EnforcementStates.Failed && status?.State == EnforcementStates.Failed;
            return new PageOnHost(host, failed ? PageStates.Failed : PageStates.Pending, null, exception?.Reason ?? status?.Reason);
        }

        var hit = hits.GetViewBetween(row.Frame, row.Frame + FrameMath.FramesOf(row.Shift) - 1).Count > 0;
        return new PageOnHost(host, hit ? PageStates.Hit : PageStates.Armed, exception?.ArmedShift ?? row.Shift, null);
    }

    private static async Task<SortedSet<long>> HitFramesAsync(
        FleetDbContext db, VmRow vm, string host, List<PoisonedPageRow> rows, CancellationToken cancellationToken)
    {
        if (rows.Count == 0)
        {
            return [];
        }

        var (first, last) = (rows[0].Frame, rows[^1].Frame + FrameMath.FramesOf(rows[^1].Shift));
        var frames = await db.Hits
            .Where(hit => hit.Vm == vm.Id && hit.MemoryInstance == vm.MemoryInstance && hit.Host == host && hit.Frame >= first && hit.Frame < last)
            .Select(hit => hit.Frame)
            .Distinct()
            .ToListAsync(cancellationToken);
        return [.. frames];
    }

    private static PageResource ToResource(PoisonedPageRow row, IReadOnlyList<PageOnHost> hosts) => new(
        row.Frame,
        row.Shift,
        HexAddress.Format(FrameMath.AddressOf(row.Frame)),
        row.Class,
        row.Source,
        row.FirstHost,
        row.DetectedAt.ToTime(),
        row.AddedGeneration,
        hosts,
        row.Version);
}
