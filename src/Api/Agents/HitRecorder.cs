using Fleet.Contracts.Agents;
using Fleet.Data;
using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Agents;

/// <summary>Stores hits; those that agree in everything but time become one row with a count (I8).</summary>
internal sealed class HitRecorder(FleetDbContext db, string host)
{
    public async Task RecordAsync(IReadOnlyList<AgentReport> hits)
    {
        foreach (var group in hits.GroupBy(Key.Of))
        {
            var key = group.Key;
            var row = await db.Hits.SingleOrDefaultAsync(hit =>
                hit.Vm == key.Vm && hit.MemoryInstance == key.MemoryInstance && hit.Frame == key.Frame && hit.Host == host
                && hit.PlacementEpoch == key.PlacementEpoch && hit.Access == key.Access && hit.Evidence == key.Evidence
                && hit.Outcome == key.Outcome);
            foreach (var hit in group)
            {
                row = Merge(row, key, hit);
            }
        }
    }

    private HitRow Merge(HitRow? row, Key key, AgentReport hit)
    {
        var (firstAt, lastAt) = (hit.FirstAt.ToUnixTimeMilliseconds(), hit.LastAt.ToUnixTimeMilliseconds());
        if (row is null)
        {
            row = new HitRow
            {
                Vm = key.Vm,
                MemoryInstance = key.MemoryInstance,
                Frame = key.Frame,
                Host = host,
                PlacementEpoch = key.PlacementEpoch,
                Access = key.Access,
                Evidence = key.Evidence,
                Outcome = key.Outcome,
                Vcpu = hit.Vcpu,
                FirstAt = firstAt,
                LastAt = lastAt,
                Count = hit.Count,
            };
            db.Hits.Add(row);
            return row;
        }

        row.FirstAt = Math.Min(row.FirstAt, firstAt);
        row.LastAt = Math.Max(row.LastAt, lastAt);
        row.Count = Counts.Add(row.Count, hit.Count);
        return row;
    }

    private sealed record Key(string Vm, long MemoryInstance, long Frame, long PlacementEpoch, string Access, string Evidence, string Outcome)
    {
        public static Key Of(AgentReport hit) =>
            new(hit.Vm!, hit.MemoryInstance, hit.Frame, hit.PlacementEpoch!.Value, hit.Access!, hit.Evidence!, hit.Outcome!);
    }
}
