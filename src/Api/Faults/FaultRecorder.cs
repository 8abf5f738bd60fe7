using System.Text.Json;
using System.Text.Json.Serialization;
using Fleet.Api.Agents;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Faults;
using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Faults;

/// <summary>Stores a host's memory errors: one row for each DIMM, frame and kind, and counts by the hour.</summary>
internal sealed class FaultRecorder(WriteScope scope, string host, string actor)
{
    private readonly FleetDbContext _db = scope.Db;

    /// <param name="faults">In the order of the spool; where they name a VM, it is one of this host.</param>
    public async Task RecordAsync(IReadOnlyList<AgentReport> faults)
    {
        foreach (var module in faults.GroupBy(fault => fault.MemoryFault!.Dimm))
        {
            var dimm = await FindAsync(module.Key);
            foreach (var group in module.GroupBy(fault => (fault.MemoryFault!.Kind, fault.MemoryFault.PhysicalFrame)))
            {
                await MergeAsync(dimm, [.. group]);
                if (group.Key.Kind == FaultKinds.Uncorrected)
                {
                    Log(module.Key, [.. group]);
                }
            }

            foreach (var hour in module.GroupBy(fault => (fault.MemoryFault!.Kind, Hour: Clamp(fault.LastAt) / FaultHourRow.Milliseconds * FaultHourRow.Milliseconds)))
            {
                await CountAsync(dimm, hour.Key.Kind, hour.Key.Hour, hour.Aggregate(0L, (sum, fault) => Counts.Add(sum, fault.Count)));
            }
        }
    }

    private async Task<DimmRow> FindAsync(DimmIdentity? identity)
    {
        var wanted = new DimmRow
        {
            Host = host,
            Label = identity?.Label ?? string.Empty,
            Locator = identity?.Locator ?? string.Empty,
            Serial = identity?.Serial ?? string.Empty,
            Manufacturer = identity?.Manufacturer ?? string.Empty,
            PartNumber = identity?.PartNumber ?? string.Empty,
        };
        var known = await _db.Dimms.SingleOrDefaultAsync(row =>
            row.Host == host && row.Label == wanted.Label && row.Locator == wanted.Locator && row.Serial == wanted.Serial
            && row.Manufacturer == wanted.Manufacturer && row.PartNumber == wanted.PartNumber);
        if (known is not null)
        {
            return known;
        }

        _db.Dimms.Add(wanted);
        await _db.SaveChangesAsync();
        return wanted;
    }

    private async Task MergeAsync(DimmRow dimm, IReadOnlyList<AgentReport> faults)
    {
        var fault = faults[0].MemoryFault!;
        var frame = fault.PhysicalFrame ?? FaultRow.UnknownFrame;
        var row = await _db.Faults.SingleOrDefaultAsync(row => row.Dimm == dimm.Id && row.PhysicalFrame == frame && row.Kind == fault.Kind);
        if (row is null)
        {
            row = new FaultRow { Dimm = dimm.Id, PhysicalFrame = frame, Kind = fault.Kind, FirstAt = long.MaxValue };
            _db.Faults.Add(row);
        }

        foreach (var report in faults)
        {
            row.FirstAt = Math.Min(row.FirstAt, Clamp(report.FirstAt));
            row.LastAt = Math.Max(row.LastAt, Clamp(report.LastAt));
            row.Count = Counts.Add(row.Count, report.Count);
        }

        var last = faults[^1];
        row.Vm = last.Vm;
        row.MemoryInstance = last.Vm is null ? null : last.MemoryInstance;
        row.Frame = last.Vm is null ? null : last.Frame;
    }

    private async Task CountAsync(DimmRow dimm, string kind, long hour, long count)
    {
        var row = await _db.FaultHours.SingleOrDefaultAsync(row => row.Dimm == dimm.Id && row.Hour == hour && row.Kind == kind);
        if (row is null)
        {
            row = new FaultHourRow { Dimm = dimm.Id, Kind = kind, Hour = hour };
            _db.FaultHours.Add(row);
        }

        row.Count = Counts.Add(row.Count, count);
    }

    /// <summary>Corrected ones are too many for a row each in the change log. Neither address nor serial number: the log is read with less.</summary>
    private void Log(DimmIdentity? dimm, IReadOnlyList<AgentReport> faults)
    {
        var last = faults[^1];
        var payload = new FaultPayload(
            dimm?.Label, dimm?.Locator, faults.Aggregate(0L, (sum, fault) => Counts.Add(sum, fault.Count)), last.Vm, last.Vm is null ? null : last.Frame);
        scope.Change(
            ChangeKinds.HostUncorrected, ChangeResources.Host(host), actor, payload: JsonSerializer.Serialize(payload, FaultPayloadJson.Default.FaultPayload));
    }

    /// <summary>A host whose clock is ahead must not put its errors where they are counted, and kept, for ever.</summary>
    private long Clamp(DateTimeOffset time) => Math.Clamp(time.ToUnixTimeMilliseconds(), 0, scope.Now);
}

/// <summary>Payload of <see cref="ChangeKinds.HostUncorrected"/>.</summary>
internal sealed record FaultPayload(string? Label, string? Locator, long Count, string? Vm, long? Frame);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(FaultPayload))]
internal sealed partial class FaultPayloadJson : JsonSerializerContext;
