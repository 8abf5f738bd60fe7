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

/// <param name="Labels">All of them must be there, with these values.</param>
public sealed record HostFilter(string? State, bool? Drained, IReadOnlyList<KeyValuePair<string, string>> Labels);

public sealed class HostReader(StoreContexts contexts, StatusBoard board, Contests contests)
{
    public async Task<HostResource?> FindAsync(string host, CancellationToken cancellationToken)
    {
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        return await WithVms(snapshot.Db, snapshot.Db.Hosts.Where(row => row.Id == host)).SingleOrDefaultAsync(cancellationToken) is { } item
            ? ToResource(item, snapshot.Revision)
            : null;
    }

    public async Task<ItemList<HostResource>> ListAsync(string after, int limit, HostFilter filter, CancellationToken cancellationToken)
    {
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        var hosts = snapshot.Db.Hosts.Where(row => row.Id.CompareTo(after) > 0);
        hosts = filter.Drained is { } drained ? hosts.Where(row => row.Drained == drained) : hosts;
        foreach (var label in filter.Labels)
        {
            var text = HostLabels.AsStored(label);
            hosts = hosts.Where(row => row.Labels.Contains(text));
        }

        // The present state is known to the status board alone: it is filtered while reading, which ends with the page.
        var items = new List<HostResource>();
        await foreach (var item in WithVms(snapshot.Db, hosts.OrderBy(row => row.Id)).AsAsyncEnumerable().WithCancellation(cancellationToken))
        {
            if (filter.State is { } state && StateOf(item.Row) != state)
            {
                continue;
            }

            if (items.Count == limit)
            {
                return new ItemList<HostResource>(items, Cursor.Of(items[^1].Id));
            }

            items.Add(ToResource(item, snapshot.Revision));
        }

        return new ItemList<HostResource>(items, null);
    }

    private static IQueryable<HostWithVms> WithVms(FleetDbContext db, IQueryable<HostRow> hosts) =>
        hosts.Select(row => new HostWithVms(row, db.Vms.Count(vm => vm.Host == row.Id)));

    private string StateOf(HostRow row) => row.Incarnation is null ? HostStates.Offline : board.StateOf(row.Id);

    private HostResource ToResource(HostWithVms item, long counter)
    {
        var row = item.Row;
        return new HostResource(
            row.Id,
            StateOf(row),
            row.Incarnation,
            row.AgentVersion,
            row.Kernel,
            row.Capabilities is null ? null : JsonSerializer.Deserialize(row.Capabilities, FleetJson.Default.IReadOnlyDictionaryStringString),
            (board.HeardAt(row.Id) ?? row.LastSeenAt)?.ToTime(),
            JsonSerializer.Deserialize(row.Labels, FleetJson.Default.IReadOnlyDictionaryStringString)!,
            row.Drained,
            item.Vms,
            row.Version,
            Quarantine.StateOf(row, counter),
            contests.ReasonOf(row.Id));
    }

    private sealed record HostWithVms(HostRow Row, int Vms);
}
