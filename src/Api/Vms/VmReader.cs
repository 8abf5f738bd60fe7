using System.Text.Json;
using Fleet.Api.Agents;
using Fleet.Contracts;
using Fleet.Contracts.Vms;
using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Vms;

public sealed class VmReader(StoreContexts contexts, Enforcement enforcement, StatusBoard board, TimeProvider time)
{
    public async Task<VmResource?> FindAsync(string id, CancellationToken cancellationToken)
    {
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        return await snapshot.Db.Vms.SingleOrDefaultAsync(row => row.Id == id, cancellationToken) is { } row
            ? await ToResourceAsync(snapshot.Db, row, cancellationToken)
            : null;
    }

    /// <summary>Waits until the VM's host confirmed the present generation, the VM is gone or parked, or time is up.</summary>
    public async Task<VmResource?> WaitAsync(string id, TimeSpan atMost, CancellationToken cancellationToken)
    {
        var deadline = time.GetUtcNow() + atMost;
        var found = await FindAsync(id, cancellationToken);
        while (found?.Host is { } host && found.Enforcement[0].State != EnforcementStates.Armed)
        {
            // The signal first, then the state again: a heartbeat in between is seen either way.
            var next = board.Changed(host).Next;
            found = await FindAsync(id, cancellationToken);
            var left = deadline - time.GetUtcNow();
            if (found?.Host is null || found.Enforcement[0].State == EnforcementStates.Armed || left <= TimeSpan.Zero)
            {
                return found;
            }

            try
            {
                await next.WaitAsync(left, time, cancellationToken);
            }
            catch (TimeoutException)
            {
                return await FindAsync(id, cancellationToken);
            }
        }

        return found;
    }

    public async Task<ItemList<VmResource>> ListAsync(string after, int limit, Func<string, string> cursorOf, CancellationToken cancellationToken)
    {
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        var rows = await snapshot.Db.Vms
            .Where(row => row.Id.CompareTo(after) > 0)
            .OrderBy(row => row.Id)
            .Take(limit + 1)
            .ToListAsync(cancellationToken);
        var items = new List<VmResource>(Math.Min(rows.Count, limit));
        foreach (var row in rows.Take(limit))
        {
            items.Add(await ToResourceAsync(snapshot.Db, row, cancellationToken));
        }

        return new ItemList<VmResource>(items, rows.Count > limit ? cursorOf(rows[limit - 1].Id) : null);
    }

    private async Task<VmResource> ToResourceAsync(FleetDbContext db, VmRow row, CancellationToken cancellationToken) => new(
        row.Id,
        row.Host,
        JsonSerializer.Deserialize(row.Memory, FleetJson.Default.IReadOnlyListMemoryRegion)!,
        JsonSerializer.Deserialize(row.Attach, FleetJson.Default.VmAttach)!,
        row.MemoryInstance,
        row.Generation,
        row.PlacementEpoch,
        row.PoisonedPages,
        await EnforcementAsync(db, row, cancellationToken),
        row.Version,
        row.Quarantined,
        row.ResetWanted,
        row.QuarantineReason);

    private async Task<List<VmEnforcement>> EnforcementAsync(FleetDbContext db, VmRow row, CancellationToken cancellationToken)
    {
        var result = new List<VmEnforcement>();
        foreach (var host in await ConcernedHosts.OfAsync(db, row, cancellationToken))
        {
            result.Add(await enforcement.OfAsync(db, row, host, cancellationToken));
        }

        return result;
    }
}
