using System.Text.Json;
using Fleet.Api.Metrics;
using Fleet.Api.Startup;
using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Changes;

/// <summary>
/// Keeps the change log, the hits and the hosts' memory errors within their age and count. In small commands of the writer, so that nobody waits long; the
/// newest change always stays, because the floor is read from the log.
/// </summary>
public sealed class Retention(StoreWriter writer, TimeProvider time, IOptions<FleetOptions> options, ILogger<Retention> logger) : BackgroundService
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
        var changes = await RepeatAsync(CompactAsync, cancellationToken);
        var hits = await RepeatAsync(DropHitsAsync, cancellationToken);
        var faults = await RepeatAsync(DropFaultsAsync, cancellationToken);
        var counts = await RepeatAsync(DropFaultHoursAsync, cancellationToken);
        if (faults + counts > 0)
        {
            await RepeatAsync(DropDimmsAsync, cancellationToken);
        }

        if (changes + hits + faults + counts > 0)
        {
            await writer.ExecuteAsync(scope => Task.FromResult(Note(scope, changes, hits, faults)), cancellationToken);
            FleetMetrics.HitsDropped.Add(hits);
            FleetMetrics.FaultsDropped.Add(faults);
            ChangeLogging.Compacted(logger, changes, hits, faults);
        }
    }

    private async Task<int> RepeatAsync(Func<WriteScope, Task<int>> step, CancellationToken cancellationToken)
    {
        var all = 0;
        int removed;
        do
        {
            removed = await writer.ExecuteAsync(step, cancellationToken);
            all += removed;
        }
        while (removed == Chunk);

        return all;
    }

    private async Task<int> CompactAsync(WriteScope scope)
    {
        var (age, count) = (options.Value.ChangeRetention, options.Value.ChangesKept);
        var old = scope.Now - (long)age.TotalMilliseconds;
        var surplus = await scope.Db.Changes.OrderByDescending(row => row.Revision).Skip(count).Select(row => (long?)row.Revision).FirstOrDefaultAsync() ?? 0;
        var newest = await scope.Db.Changes.MaxAsync(row => (long?)row.Revision) ?? 0;
        // Oldest first and without holes: the floor says all that is gone.
        var firstKept = await scope.Db.Changes.Where(row => row.At >= old).OrderBy(row => row.Revision).Select(row => (long?)row.Revision).FirstOrDefaultAsync() ?? newest;
        var last = Math.Min(Math.Max(firstKept - 1, surplus), newest - 1);
        return await scope.Db.Changes.Where(row => row.Revision <= last).OrderBy(row => row.Revision).Take(Chunk).ExecuteDeleteAsync();
    }

    private async Task<int> DropHitsAsync(WriteScope scope)
    {
        var old = scope.Now - (long)options.Value.HitRetention.TotalMilliseconds;
        var surplus = await scope.Db.Hits.OrderByDescending(row => row.Id).Skip(options.Value.HitsKept).Select(row => (long?)row.Id).FirstOrDefaultAsync() ?? 0;
        return await scope.Db.Hits.Where(row => row.LastAt < old || row.Id <= surplus).OrderBy(row => row.Id).Take(Chunk).ExecuteDeleteAsync();
    }

    private async Task<int> DropFaultsAsync(WriteScope scope)
    {
        var old = scope.Now - (long)options.Value.FaultRetention.TotalMilliseconds;
        var surplus = await scope.Db.Faults.OrderByDescending(row => row.Id).Skip(options.Value.FaultsKept).Select(row => (long?)row.Id).FirstOrDefaultAsync() ?? 0;
        return await scope.Db.Faults.Where(row => row.LastAt < old || row.Id <= surplus).OrderBy(row => row.Id).Take(Chunk).ExecuteDeleteAsync();
    }

    private async Task<int> DropFaultHoursAsync(WriteScope scope)
    {
        var old = scope.Now - (long)options.Value.FaultRetention.TotalMilliseconds - FaultHourRow.Milliseconds;
        var surplus = await scope.Db.FaultHours.OrderByDescending(row => row.Id).Skip(options.Value.FaultsKept).Select(row => (long?)row.Id).FirstOrDefaultAsync() ?? 0;
        return await scope.Db.FaultHours.Where(row => row.Hour < old || row.Id <= surplus).OrderBy(row => row.Id).Take(Chunk).ExecuteDeleteAsync();
    }

    /// <summary>Modules that nothing speaks of any more.</summary>
    private static Task<int> DropDimmsAsync(WriteScope scope) =>
        scope.Db.Dimms
            .Where(dimm => !scope.Db.Faults.Any(row => row.Dimm == dimm.Id) && !scope.Db.FaultHours.Any(row => row.Dimm == dimm.Id))
            .OrderBy(dimm => dimm.Id).Take(Chunk).ExecuteDeleteAsync();

    private static long Note(WriteScope scope, int changes, int hits, int faults) => scope.Change(
        ChangeKinds.Compacted, "changes", "system", "retention", JsonSerializer.Serialize(new Dictionary<string, int> { ["changes"] = changes, ["hits"] = hits, ["faults"] = faults }));
}
