using System.Text.Json;
using System.Text.Json.Serialization;
using Fleet.Api.Problems;
using Fleet.Api.Vms;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Pages;
using Fleet.Data.Entities;
using Fleet.Data.Pages;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Agents;

/// <summary>
/// Applies the part of a spool that is new, as one command: what is stored and how far the spool has been read commit
/// together, so that a replay changes nothing (I5) and nothing is acknowledged that is not durable (I2).
/// </summary>
internal sealed class ReportCommand
{
    private readonly WriteScope _scope;
    private readonly string _host;
    private readonly string _actor;
    private readonly List<RejectedReport> _rejected = [];
    private readonly Dictionary<string, ReportedVm?> _vms = new(StringComparer.Ordinal);

    private ReportCommand(WriteScope scope, string host, string actor) => (_scope, _host, _actor) = (scope, host, actor);

    public static async Task<Outcome<ReportsResult>> ApplyAsync(WriteScope scope, string host, ReportsRequest request, string actor)
    {
        if (await scope.Db.Hosts.FindAsync(host) is not { } row || row.Incarnation != request.Incarnation)
        {
            return ProblemTypes.AgentSuperseded;
        }

        var spool = await scope.Db.Spools.FindAsync(host, request.SpoolId);
        var last = spool?.LastSequence ?? 0;
        var fresh = request.Reports.Where(report => report.Sequence > last).ToList();
        if (fresh.Count == 0)
        {
            return new ReportsResult(last, []);
        }

        if (fresh[0].Sequence != last + 1)
        {
            return new Problem(
                ProblemTypes.SpoolGap,
                $"Expected sequence {last + 1}, the first here is {fresh[0].Sequence}.",
                Members: new Dictionary<string, object?> { ["expected"] = last + 1 });
        }

        if (spool is null)
        {
            spool = new SpoolRow { Host = host, SpoolId = request.SpoolId };
            scope.Db.Spools.Add(spool);
        }

        spool.LastSequence = fresh[^1].Sequence;
        return await new ReportCommand(scope, host, actor).ApplyAsync(request.SpoolId, fresh);
    }

    private async Task<ReportsResult> ApplyAsync(string spoolId, List<AgentReport> reports)
    {
        var poison = new List<(VmRow Vm, NewPage Page)>();
        var hits = new List<AgentReport>();
        foreach (var report in reports)
        {
            var vm = await FindAsync(report.Vm);
            if (vm.Refuse(report) is { } code)
            {
                _rejected.Add(new RejectedReport(report.Sequence, code));
            }
            else if (report.Kind == AgentReport.Hit)
            {
                hits.Add(report);
            }
            else
            {
                poison.Add((vm.Row!, ToPage(report)));
            }
        }

        foreach (var group in poison.GroupBy(item => item.Vm))
        {
            await PoisonedSet.AddAsync(_scope, group.Key, [.. group.Select(item => item.Page)], _actor, reason: null);
        }

        await new HitRecorder(_scope.Db, _host).RecordAsync(hits);
        var payload = new ReportsPayload(spoolId, reports[0].Sequence, reports[^1].Sequence, poison.Count, hits.Count, _rejected);
        _scope.Change(ChangeKinds.ReportsApplied, ChangeResources.Host(_host), _actor, payload: payload.ToJson());
        return new ReportsResult(reports[^1].Sequence, _rejected);
    }

    private async Task<ReportedVm> FindAsync(string id)
    {
        if (_vms.GetValueOrDefault(id) is { } known)
        {
            return known;
        }

        var row = await _scope.Db.Vms.FindAsync(id);
        var held = await _scope.Db.Placements.AsNoTracking()
            .Where(placement => placement.Vm == id && placement.Host == _host)
            .Select(placement => placement.MemoryInstance)
            .Distinct()
            .ToListAsync();
        return _vms[id] = new ReportedVm(row, held);
    }

    private NewPage ToPage(AgentReport report) => new(
        report.Frame,
        report.Shift!.Value,
        report.Class ?? PageClasses.Unknown,
        report.Source ?? PageSources.MemoryFailure,
        _host,
        report.FirstAt.ToUnixTimeMilliseconds());

    /// <summary>A VM as a host's reports see it: authorised by placement history, not by where the VM is now.</summary>
    private sealed class ReportedVm(VmRow? row, List<long> heldInstances)
    {
        private readonly MemoryLayout? _layout = row is null ? null : MemoryLayout.Parse(row.Memory);

        public VmRow? Row { get; } = row;

        /// <summary>Why the report can never be applied; null when it can.</summary>
        public string? Refuse(AgentReport report)
        {
            if (Row is null)
            {
                return "unknown-vm";
            }

            if (heldInstances.Count == 0)
            {
                return "not-placed-here";
            }

            // A hit happened, whatever became of the memory since (I8); poison of memory that is gone means nothing.
            var isHit = report.Kind == AgentReport.Hit;
            if (!heldInstances.Contains(report.MemoryInstance) || (!isHit && report.MemoryInstance != Row.MemoryInstance))
            {
                return report.MemoryInstance == Row.MemoryInstance ? "not-placed-here" : "stale-memory-instance";
            }

            return _layout!.Contains(report.Frame, report.Shift ?? Contracts.FrameMath.FrameShift) ? null : "frame-outside-memory";
        }
    }
}

/// <summary>Payload of <see cref="ChangeKinds.ReportsApplied"/>.</summary>
internal sealed record ReportsPayload(string SpoolId, long From, long To, int Poison, int Hits, IReadOnlyList<RejectedReport> Rejected)
{
    public string ToJson() => JsonSerializer.Serialize(this, ReportsPayloadJson.Default.ReportsPayload);
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(ReportsPayload))]
internal sealed partial class ReportsPayloadJson : JsonSerializerContext;
