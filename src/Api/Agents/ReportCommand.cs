using Fleet.Api.Faults;
using Fleet.Api.Metrics;
using Fleet.Api.Migrations;
using Fleet.Api.Problems;
using Fleet.Api.Restore;
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

    private readonly List<(VmRow Vm, NewPage Page)> _poison = [];
    private readonly GateReports _gate;
    private int _added;

    private ReportCommand(WriteScope scope, string host, string actor)
    {
        (_scope, _host, _actor) = (scope, host, actor);
        _gate = new GateReports(scope, host, actor);
    }

    public static async Task<Outcome<ReportsResult>> ApplyAsync(WriteScope scope, string host, ReportsRequest request, string actor)
    {
        if (Admission.Judge(await scope.Db.Hosts.FindAsync(host), request.Incarnation, scope.Revision) is { } refused)
        {
            return refused;
        }

        if (request.Acks is { Count: > 0 } && await ShownBy(host, request).FindProofAsync(scope.Db, scope.Revision) is not null)
        {
            // Nothing of it counts: the numbers that it is about are not this database's.
            return ProblemTypes.StatementRequired;
        }

        var spool = await scope.Db.Spools.FindAsync(host, request.SpoolId);
        var last = spool?.LastSequence ?? 0;
        var fresh = request.Reports.Where(report => report.Sequence > last).ToList();
        if (fresh.Count > 0 && fresh[0].Sequence != last + 1)
        {
            return new Problem(
                ProblemTypes.SpoolGap,
                $"Expected sequence {last + 1}, the first here is {fresh[0].Sequence}.",
                Members: new Dictionary<string, object?> { ["expected"] = last + 1 });
        }

        var command = new ReportCommand(scope, host, actor);
        if (fresh.Count > 0)
        {
            if (spool is null)
            {
                spool = new SpoolRow { Host = host, SpoolId = request.SpoolId };
                scope.Db.Spools.Add(spool);
            }

            spool.LastSequence = fresh[^1].Sequence;
            await command.ApplyAsync(request.SpoolId, fresh);
        }

        // After the reports: they hold the state of this moment, and a memory fault among the reports would void them.
        foreach (var ack in request.Acks ?? [])
        {
            await command._gate.AcknowledgeAsync(ack, request.Incarnation);
        }

        if (request.Obstacles is { } obstacles)
        {
            await command._gate.ObstructAsync(obstacles);
        }

        return new ReportsResult(spool?.LastSequence ?? 0, command._rejected);
    }

    /// <summary>An acknowledgement of a generation that was never issued here proves that the database was put back from a backup.</summary>
    public static Shown ShownBy(string host, ReportsRequest request) =>
        new(host, 0, request.Incarnation, [.. (request.Acks ?? []).Select(ack => new ShownVm(ack.Vm, ack.Generation, ack.MemoryInstance))]);

    private async Task ApplyAsync(string spoolId, List<AgentReport> reports)
    {
        var (sound, hits, faults) = (new List<AgentReport>(), new List<AgentReport>(), new List<AgentReport>());
        foreach (var sent in reports)
        {
            if (ReportContent.FindWrong(sent) is not null)
            {
                _rejected.Add(new RejectedReport(sent.Sequence, ReportContent.Malformed));
                continue;
            }

            var report = ReportContent.Limit(sent);
            sound.Add(report);
            if (report.Kind == AgentReport.Fault)
            {
                faults.Add(await WithOwnVmAsync(report));
                continue;
            }

            var vm = await FindAsync(report.Vm!);
            var code = vm.Refuse(report);
            if (code is null && report.Kind == AgentReport.Hit)
            {
                hits.Add(report);
            }
            else if (code is null && report.Kind == AgentReport.Poison)
            {
                await TakeAsync(vm.Row!, report);
            }
            else if (code is null && report.Kind == AgentReport.MarkerLost)
            {
                _scope.Change(ChangeKinds.MarkersLost, ChangeResources.Vm(report.Vm!), _actor, payload: MarkersLostPayload.Of(_host, report).ToJson());
            }
            else if (code is null)
            {
                // In the spool's order: what was reported before a seal is in the set before the seal counts.
                await FlushAsync();
                code = await _gate.ApplyAsync(report, vm.Row!);
            }

            if (code is not null)
            {
                _rejected.Add(new RejectedReport(report.Sequence, code));
            }
        }

        await FlushAsync();
        await new HitRecorder(_scope.Db, _host).RecordAsync(hits);
        await new FaultRecorder(_scope, _host, _actor).RecordAsync(faults);
        var payload = new ReportsPayload(spoolId, reports[0].Sequence, reports[^1].Sequence, _added, hits.Count, _rejected, faults.Count);
        Count(sound, hits, faults);
        _scope.Change(ChangeKinds.ReportsApplied, ChangeResources.Host(_host), _actor, payload: payload.ToJson());
    }

    /// <summary>The error happened whatever VM is named; what the name says holds only of VMs that are this host's to speak of (I7).</summary>
    private async Task<AgentReport> WithOwnVmAsync(AgentReport fault) =>
        fault.Vm is null || (await FindAsync(fault.Vm)).Refuse(fault) is null ? fault : fault with { Vm = null };

    private void Count(List<AgentReport> reports, List<AgentReport> hits, List<AgentReport> faults) => _scope.OnCommitted(() =>
    {
        foreach (var kind in reports.CountBy(report => report.Kind))
        {
            FleetMetrics.Reports.Add(kind.Value, new KeyValuePair<string, object?>("kind", kind.Key));
        }

        foreach (var code in _rejected.CountBy(report => report.Code))
        {
            FleetMetrics.Rejected.Add(code.Value, new KeyValuePair<string, object?>("code", code.Key));
        }

        FleetMetrics.Hits.Add(hits.Sum(hit => hit.Count));
        foreach (var fault in faults)
        {
            FleetMetrics.Faults.Add(fault.Count, new KeyValuePair<string, object?>("kind", fault.MemoryFault!.Kind));
        }
    });

    /// <summary>Where the poison arose decides whether it is the VM's (GATE.md, "Reports of new poison").</summary>
    private async Task TakeAsync(VmRow vm, AgentReport report)
    {
        var owns = vm.Host == _host;
        if (owns || report.Origin is null or PoisonOrigins.Held)
        {
            _poison.Add((vm, ToPage(report)));
            if (!owns)
            {
                Log(ChangeKinds.LatePoison, ChangeResources.Vm(vm.Id), report);
            }

            return;
        }

        Log(ChangeKinds.HostFault, ChangeResources.Host(_host), report);
        if (report.Origin == PoisonOrigins.Incoming)
        {
            await _gate.VoidAckAsync(vm);
        }
    }

    private void Log(string kind, string resource, AgentReport report) => _scope.Change(
        kind,
        resource,
        _actor,
        payload: new HostFault(report.Vm!, report.MemoryInstance, report.Frame, report.Shift!.Value, report.Origin ?? PoisonOrigins.Held).ToJson());

    private async Task FlushAsync()
    {
        foreach (var group in _poison.GroupBy(item => item.Vm))
        {
            await PoisonedSet.AddAsync(_scope, group.Key, [.. group.Select(item => item.Page)], _actor, reason: null);
            _added += group.Count();
        }

        _poison.Clear();
        await _scope.Db.SaveChangesAsync();
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
        var isTarget = await MigrationCommands.FindActiveAsync(_scope.Db, id) is { } migration && migration.TargetHost == _host;
        return _vms[id] = new ReportedVm(row, held, isTarget);
    }

    private NewPage ToPage(AgentReport report) => new(
        report.Frame,
        report.Shift!.Value,
        report.Class ?? PageClasses.Unknown,
        report.Source ?? PageSources.MemoryFailure,
        _host,
        report.FirstAt.ToUnixTimeMilliseconds());

    /// <summary>A VM as a host's reports see it: authorised by placement history and by being the target of its migration.</summary>
    private sealed class ReportedVm(VmRow? row, List<long> heldInstances, bool isTarget)
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

            if (heldInstances.Count == 0 && !isTarget)
            {
                return "not-placed-here";
            }

            // A hit happened, whatever became of the memory since (I8); poison of memory that is gone means nothing.
            var isHit = report.Kind == AgentReport.Hit;
            var isPresent = report.MemoryInstance == Row.MemoryInstance;
            var hasHeld = heldInstances.Contains(report.MemoryInstance);
            if (!isPresent && !(isHit && hasHeld))
            {
                return "stale-memory-instance";
            }

            // A target that never held the right can only speak of what is incoming.
            var claimsRight = report is { Kind: AgentReport.Poison, Origin: not PoisonOrigins.Incoming };
            if (!hasHeld && (!isTarget || claimsRight))
            {
                return "not-placed-here";
            }

            return report.Kind is not (AgentReport.Hit or AgentReport.Poison or AgentReport.Fault or AgentReport.MarkerLost) ? null
                : _layout!.Contains(report.Frame, report.Shift ?? Contracts.FrameMath.FrameShift) ? null
                : "frame-outside-memory";
        }
    }
}
