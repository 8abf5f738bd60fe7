using System.Text.Json;
using Fleet.Api.Metrics;
using Fleet.Api.Startup;
using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Changes;

/// <summary>
/// Keeps the change log, the hits and the hosts' memory errors within their age and count. What is to go is looked for by a reader, and goes by its key in small
/// commands of the writer, so that nobody waits long; the newest change always stays, because the floor is read from the log.
/// </summary>
public sealed class Retention(StoreContexts contexts, StoreWriter writer, TimeProvider time, IOptions<FleetOptions> options, ILogger<Retention> logger) : BackgroundService
{
    private const int Chunk = 5_000;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(options.Value.RetentionInterval, time);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            try
            {
                await RunAsync(stoppingToken);
            }
            catch (StoreWriteException exception)
            {
                ChangeLogging.RetentionFailed(logger, exception);
            }
        }
    }

    internal async Task RunAsync(CancellationToken cancellationToken)
    {
        var changes = await CompactAsync(cancellationToken);
        var hits = await DropAsync(await OldHitsAsync(cancellationToken), cancellationToken);
        var faults = await DropAsync(await OldFaultsAsync(cancellationToken), cancellationToken);
        var counts = await DropAsync(await OldFaultHoursAsync(cancellationToken), cancellationToken);
        if (faults + counts > 0)
        {
            await DropAsync(EmptyDimms, cancellationToken);
        }

        if (changes + hits + faults + counts > 0)
        {
            await writer.ExecuteAsync(scope => Task.FromResult(Note(scope, changes, hits, faults)), cancellationToken);
            FleetMetrics.HitsDropped.Add(hits);
            FleetMetrics.FaultsDropped.Add(faults);
            ChangeLogging.Compacted(logger, changes, hits, faults);
        }
    }

    private async Task<int> CompactAsync(CancellationToken cancellationToken)
    {
        var last = await LastToCompactAsync(cancellationToken);
        var all = 0;
        int removed;
        do
        {
            removed = await writer.ExecuteAsync(
                scope => scope.Db.Changes.Where(row => row.Revision <= last).OrderBy(row => row.Revision).Take(Chunk).ExecuteDeleteAsync(), cancellationToken);
            all += removed;
        }
        while (removed == Chunk);

        return all;
    }

    private async Task<long> LastToCompactAsync(CancellationToken cancellationToken)
    {
        await using var db = contexts.OpenReader();
        var old = Before(options.Value.ChangeRetention);
        var surplus = await db.Changes.OrderByDescending(row => row.Revision).Skip(options.Value.ChangesKept).Select(row => (long?)row.Revision).FirstOrDefaultAsync(cancellationToken) ?? 0;
        var newest = await db.Changes.MaxAsync(row => (long?)row.Revision, cancellationToken) ?? 0;

        // Oldest first and without holes: the floor says all that is gone.
        var firstKept = await db.Changes.Where(row => row.At >= old).OrderBy(row => row.Revision).Select(row => (long?)row.Revision).FirstOrDefaultAsync(cancellationToken) ?? newest;
        return Math.Min(Math.Max(firstKept - 1, surplus), newest - 1);
    }

    /// <summary>Looked for by a reader, which nobody waits for, and dropped by key in the writer; what is not old any more by then stays.</summary>
    /// <param name="old">Of entities with a key <c>Id</c>.</param>
    private async Task<int> DropAsync<TRow>(Func<FleetDbContext, IQueryable<TRow>> old, CancellationToken cancellationToken)
        where TRow : class
    {
        const string key = nameof(HitRow.Id);
        var (all, last) = (0, 0L);
        while (true)
        {
            long[] found;
            await using (var db = contexts.OpenReader())
            {
                found = await old(db).Select(row => EF.Property<long>(row, key)).Where(id => id > last).OrderBy(id => id).Take(Chunk).ToArrayAsync(cancellationToken);
            }

            if (found.Length == 0)
            {
                return all;
            }

            all += await writer.ExecuteAsync(
                scope => old(scope.Db).Where(row => EF.Parameter(found).Contains(EF.Property<long>(row, key))).ExecuteDeleteAsync(), cancellationToken);
            last = found[^1];
        }
    }

    private async Task<Func<FleetDbContext, IQueryable<HitRow>>> OldHitsAsync(CancellationToken cancellationToken)
    {
        await using var db = contexts.OpenReader();
        var old = Before(options.Value.HitRetention);
        var surplus = await db.Hits.OrderByDescending(row => row.Id).Skip(options.Value.HitsKept).Select(row => (long?)row.Id).FirstOrDefaultAsync(cancellationToken) ?? 0;
        return store => store.Hits.Where(row => row.LastAt < old || row.Id <= surplus);
    }

    private async Task<Func<FleetDbContext, IQueryable<FaultRow>>> OldFaultsAsync(CancellationToken cancellationToken)
    {
        await using var db = contexts.OpenReader();
        var old = Before(options.Value.FaultRetention);
        var surplus = await db.Faults.OrderByDescending(row => row.Id).Skip(options.Value.FaultsKept).Select(row => (long?)row.Id).FirstOrDefaultAsync(cancellationToken) ?? 0;
        return store => store.Faults.Where(row => row.LastAt < old || row.Id <= surplus);
    }

    private async Task<Func<FleetDbContext, IQueryable<FaultHourRow>>> OldFaultHoursAsync(CancellationToken cancellationToken)
    {
        await using var db = contexts.OpenReader();
        var old = Before(options.Value.FaultRetention) - FaultHourRow.Milliseconds;
        var surplus = await db.FaultHours.OrderByDescending(row => row.Id).Skip(options.Value.FaultsKept).Select(row => (long?)row.Id).FirstOrDefaultAsync(cancellationToken) ?? 0;
        return store => store.FaultHours.Where(row => row.Hour < old || row.Id <= surplus);
    }

    /// <summary>Modules that nothing speaks of any more.</summary>
    private static IQueryable<DimmRow> EmptyDimms(FleetDbContext db) =>
        db.Dimms.Where(dimm => !db.Faults.Any(row => row.Dimm == dimm.Id) && !db.FaultHours.Any(row => row.Dimm == dimm.Id));

    private long Before(TimeSpan age) => time.GetUtcNow().ToUnixTimeMilliseconds() - (long)age.TotalMilliseconds;

    private static long Note(WriteScope scope, int changes, int hits, int faults) => scope.Change(
        ChangeKinds.Compacted, "changes", "system", "retention", JsonSerializer.Serialize(new Dictionary<string, int> { ["changes"] = changes, ["hits"] = hits, ["faults"] = faults }));
}
