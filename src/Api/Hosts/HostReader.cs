using System.Text.Json;
using Fleet.Api.Agents;
using Fleet.Api.Lists;
using Fleet.Api.Restore;
using Fleet.Contracts;
using Fleet.Contracts.Hosts;
using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Hosts;

public sealed class HostReader(StoreContexts contexts, StatusBoard board)
{
    public async Task<HostResource?> FindAsync(string host, CancellationToken cancellationToken)
    {
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        return await WithVms(snapshot.Db, snapshot.Db.Hosts.Where(row => row.Id == host)).SingleOrDefaultAsync(cancellationToken) is { } item
            ? ToResource(item, snapshot.Revision)
            : null;
    }

    public async Task<ItemList<HostResource>> ListAsync(string after, int limit, CancellationToken cancellationToken)
    {
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        var hosts = snapshot.Db.Hosts.Where(row => row.Id.CompareTo(after) > 0).OrderBy(row => row.Id).Take(limit + 1);
        var rows = await WithVms(snapshot.Db, hosts).ToListAsync(cancellationToken);
        var next = rows.Count > limit ? Cursor.Of(rows[limit - 1].Row.Id) : null;
        return new ItemList<HostResource>([.. rows.Take(limit).Select(item => ToResource(item, snapshot.Revision))], next);
    }

    private static IQueryable<HostWithVms> WithVms(FleetDbContext db, IQueryable<HostRow> hosts) =>
        hosts.Select(row => new HostWithVms(row, db.Vms.Count(vm => vm.Host == row.Id)));

    private HostResource ToResource(HostWithVms item, long counter)
    {
        var row = item.Row;
        return new HostResource(
            row.Id,
            row.Incarnation is null ? HostStates.Offline : board.StateOf(row.Id),
            row.Incarnation,
            row.AgentVersion,
            row.Kernel,
            row.Capabilities is null ? null : JsonSerializer.Deserialize(row.Capabilities, FleetJson.Default.IReadOnlyDictionaryStringString),
            (board.HeardAt(row.Id) ?? row.LastSeenAt)?.ToTime(),
            JsonSerializer.Deserialize(row.Labels, FleetJson.Default.IReadOnlyDictionaryStringString)!,
            row.Drained,
            item.Vms,
            Quarantine.StateOf(row, counter));
    }

    private sealed record HostWithVms(HostRow Row, int Vms);
}
