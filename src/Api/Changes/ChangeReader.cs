using System.Text.Json;
using System.Text.Json.Serialization;
using Fleet.Api.Lists;
using Fleet.Contracts.Changes;
using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Changes;

/// <summary>What a reader asks for, and what it may see.</summary>
public sealed record ChangeFilter(string? Resource, string? Kind, bool IsAdmin);

/// <param name="Rows">Ascending by revision.</param>
/// <param name="IsWhole">Nothing more that matches was committed when this was read.</param>
/// <param name="Newest">Newest revision of the store then.</param>
/// <param name="Floor">Changes up to this one are not kept.</param>
public sealed record ChangePage(IReadOnlyList<ChangeResource> Rows, bool IsWhole, long Newest, long Floor);

/// <summary>Reads the change log in the order of its revisions, which is the order of the commits.</summary>
public sealed class ChangeReader(StoreContexts contexts)
{
    /// <summary>Kinds whose data and reason concern who may do what: for administrators.</summary>
    private static readonly string[] AdminKinds = ["credential.", "join-token.", "agent."];

    /// <param name="since">The last revision that the reader has; null: from the oldest that is kept.</param>
    /// <returns>Null where the reader cannot go on from <paramref name="since"/>: compacted, or never issued by this store.</returns>
    public async Task<ChangePage?> ReadAsync(long? since, ChangeFilter filter, int limit, CancellationToken cancellationToken)
    {
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        var floor = await ChangeLog.FloorAsync(snapshot.Db, cancellationToken);
        var after = since ?? floor;
        if (!await IsKnownAsync(snapshot.Db, after, floor, cancellationToken))
        {
            return null;
        }

        var changes = snapshot.Db.Changes.Where(row => row.Revision > after);
        changes = filter.Resource is { } resource ? changes.Where(row => row.Resource == resource) : changes;
        changes = filter.Kind is { } kind ? changes.Where(row => row.Kind == kind) : changes;
        var rows = await changes.OrderBy(row => row.Revision).Take(limit + 1).ToListAsync(cancellationToken);
        return new ChangePage([.. rows.Take(limit).Select(row => ToResource(row, filter))], rows.Count <= limit, snapshot.Revision, floor);
    }

    /// <summary>The newest revision and the floor.</summary>
    public async Task<(long Newest, long Floor)> EndsAsync(CancellationToken cancellationToken)
    {
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        return (snapshot.Revision, await ChangeLog.FloorAsync(snapshot.Db, cancellationToken));
    }

    // A restored store has never issued what came after its backup: a reader that shows such a revision must start anew.
    private static async Task<bool> IsKnownAsync(FleetDbContext db, long revision, long floor, CancellationToken cancellationToken) =>
        revision == floor || await db.Changes.AnyAsync(row => row.Revision == revision, cancellationToken);

    private static ChangeResource ToResource(ChangeRow row, ChangeFilter filter)
    {
        var isHidden = !filter.IsAdmin && Array.Exists(AdminKinds, prefix => row.Kind.StartsWith(prefix, StringComparison.Ordinal));
        return new ChangeResource(row.Revision, row.Kind, row.Resource, row.Actor, isHidden ? null : row.Reason, row.At.ToTime(), isHidden ? null : Parse(row.Payload));
    }

    private static JsonElement? Parse(string? payload)
    {
        if (payload is null)
        {
            return null;
        }

        try
        {
            return JsonElement.Parse(payload);
        }
        catch (JsonException)
        {
            // Logs written before payloads of seals were JSON hold them as plain text; one row must not hide all the others.
            return JsonSerializer.SerializeToElement(payload, PlainJson.Default.String);
        }
    }
}

[JsonSerializable(typeof(string))]
internal sealed partial class PlainJson : JsonSerializerContext;
