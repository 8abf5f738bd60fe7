using Fleet.Api.Agents;
using Fleet.Api.Lists;
using Fleet.Contracts;
using Fleet.Contracts.Faults;
using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Faults;

/// <summary>Reads the hosts' memory errors, hiding what identifies hardware from those who may not see it.</summary>
public sealed class FaultReader(StoreContexts contexts)
{
    public const string Hour = "1h";
    public const string Day = "1d";
    public const int MostBuckets = 1000;

    /// <summary>Length of a bucket in ms.</summary>
    public static long WidthOf(string bucket) => bucket == Hour ? FaultHourRow.Milliseconds : 24 * FaultHourRow.Milliseconds;

    /// <param name="since">Unix ms; null for all that is kept.</param>
    /// <param name="showsHardware">With physical addresses and serial numbers.</param>
    public async Task<ItemList<FaultResource>> ListAsync(
        long after, int limit, string? host, string? dimm, long? since, bool showsHardware, CancellationToken cancellationToken)
    {
        await using var db = contexts.OpenReader();
        var dimms = host is null ? db.Dimms : db.Dimms.Where(row => row.Host == host);
        dimms = dimm is null ? dimms : dimms.Where(row => row.Label == dimm || row.Locator == dimm);
        var faults = db.Faults.Where(row => row.Id > after);
        faults = since is null ? faults : faults.Where(row => row.LastAt >= since);
        var rows = await faults.Join(dimms, fault => fault.Dimm, row => row.Id, (fault, row) => new { Fault = fault, Dimm = row })
            .OrderBy(pair => pair.Fault.Id).Take(limit + 1).ToListAsync(cancellationToken);
        var next = rows.Count > limit ? Cursor.Of(rows[limit - 1].Fault.Id) : null;
        return new ItemList<FaultResource>([.. rows.Take(limit).Select(pair => ToResource(pair.Fault, pair.Dimm, showsHardware))], next);
    }

    /// <param name="since">Unix ms, rounded down to a whole bucket here.</param>
    public async Task<FaultSummary> SummarizeAsync(
        long since, string bucket, string? host, int limit, bool showsHardware, CancellationToken cancellationToken)
    {
        var width = WidthOf(bucket);
        var start = Math.Max(0, since) / width * width;
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        var db = snapshot.Db;
        var dimms = host is null ? db.Dimms : db.Dimms.Where(row => row.Host == host);
        // Limited once more: rows of before counts were limited could not be summed.
        var worst = await db.FaultHours.Where(row => row.Hour >= start)
            .GroupBy(row => row.Dimm)
            .Select(group => new
            {
                Dimm = group.Key,
                Uncorrected = group.Sum(row => row.Kind == FaultKinds.Uncorrected ? Math.Min(row.Count, Counts.Most) : 0),
                Corrected = group.Sum(row => row.Kind == FaultKinds.Corrected ? Math.Min(row.Count, Counts.Most) : 0),
            })
            .Join(dimms, total => total.Dimm, row => row.Id, (total, row) => new { total.Uncorrected, total.Corrected, Dimm = row })
            .OrderByDescending(total => total.Uncorrected).ThenByDescending(total => total.Corrected).ThenBy(total => total.Dimm.Id)
            .Take(limit + 1)
            .ToListAsync(cancellationToken);
        var shown = worst.Take(limit).ToList();
        long[] ids = [.. shown.Select(total => total.Dimm.Id)];
        var buckets = await BucketsAsync(db, ids, start, width, cancellationToken);
        var frames = (await db.Faults.Where(row => ids.Contains(row.Dimm) && row.LastAt >= start)
            .GroupBy(row => row.Dimm)
            .Select(group => new
            {
                Dimm = group.Key,
                Last = group.Max(row => row.LastAt),
                Distinct = group.Where(row => row.PhysicalFrame != FaultRow.UnknownFrame).Select(row => row.PhysicalFrame).Distinct().Count(),
            })
            .ToListAsync(cancellationToken)).ToDictionary(item => item.Dimm);
        return new FaultSummary(
            start.ToTime(),
            bucket,
            [
                .. shown.Select(total =>
                {
                    var details = frames.GetValueOrDefault(total.Dimm.Id);
                    return new DimmFaults(
                        total.Dimm.Host, ToIdentity(total.Dimm, showsHardware), total.Uncorrected, total.Corrected,
                        details?.Distinct ?? 0, details?.Last.ToTime(), [.. buckets[total.Dimm.Id]], !showsHardware);
                }),
            ],
            worst.Count > limit);
    }

    private static async Task<ILookup<long, FaultBucket>> BucketsAsync(FleetDbContext db, long[] dimms, long start, long width, CancellationToken cancellationToken)
    {
        var rows = await db.FaultHours.Where(row => row.Hour >= start && dimms.Contains(row.Dimm))
            .GroupBy(row => new { row.Dimm, At = row.Hour / width * width })
            .Select(group => new
            {
                group.Key.Dimm,
                group.Key.At,
                Uncorrected = group.Sum(row => row.Kind == FaultKinds.Uncorrected ? Math.Min(row.Count, Counts.Most) : 0),
                Corrected = group.Sum(row => row.Kind == FaultKinds.Corrected ? Math.Min(row.Count, Counts.Most) : 0),
            })
            .OrderBy(row => row.At)
            .ToListAsync(cancellationToken);
        return rows.ToLookup(row => row.Dimm, row => new FaultBucket(row.At.ToTime(), row.Uncorrected, row.Corrected));
    }

    private static FaultResource ToResource(FaultRow row, DimmRow dimm, bool showsHardware)
    {
        long? frame = showsHardware && row.PhysicalFrame != FaultRow.UnknownFrame ? row.PhysicalFrame : null;
        return new FaultResource(
            row.Id, dimm.Host, ToIdentity(dimm, showsHardware), row.Kind, frame, frame is { } known ? HexAddress.Format(FrameMath.AddressOf(known)) : null,
            row.Vm, row.MemoryInstance, row.Frame, row.FirstAt.ToTime(), row.LastAt.ToTime(), row.Count, !showsHardware);
    }

    private static DimmIdentity? ToIdentity(DimmRow row, bool showsHardware)
    {
        var identity = new DimmIdentity(Known(row.Label), Known(row.Locator), Known(row.Serial), Known(row.Manufacturer), Known(row.PartNumber));
        return identity == new DimmIdentity(null, null, null, null, null) ? null : showsHardware ? identity : identity with { Serial = null };
    }

    private static string? Known(string text) => text.Length > 0 ? text : null;
}
