using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Pages;
using Fleet.HostAgent.Enforce;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>Memory failures of one kind that QEMU told by QMP.</summary>
/// <param name="Action">As in <see cref="QmpMemoryFailure"/>.</param>
public sealed record QemuFailures(string Action, long Count, DateTimeOffset FirstAt, DateTimeOffset LastAt);

/// <summary>A line of QEMU's log that names the guest address of a memory failure.</summary>
/// <param name="ActionRequired">BUS_MCEERR_AR: the guest accessed it, as against an error that was found meanwhile (AO).</param>
public sealed record QemuLogEntry(ulong GuestPhysicalAddress, bool ActionRequired);

/// <summary>Turns what QEMU says of memory failures into reports. Pure.</summary>
public static class QemuFailureReports
{
    /// <param name="trapped">Frames that may carry a marker in this QEMU.</param>
    /// <param name="log">The log's lines of the same time; null where the log is not read.</param>
    /// <returns>
    /// The reports, and how many failures could be any of several pages: those have no report of their own. With several armed pages and no log
    /// an event says only that one of them was touched; the kernel's tracepoints tell which.
    /// </returns>
    public static (IReadOnlyList<AgentReport> Reports, long Unplaced) Build(
        IReadOnlyList<QemuFailures> failures, IReadOnlyList<QemuLogEntry>? log, FrameSet trapped, string vm, long memoryInstance, long? placementEpoch)
    {
        if (failures.Count == 0)
        {
            return ([], 0);
        }

        var total = failures.Sum(failure => failure.Count);
        if (log is { Count: > 0 })
        {
            var (first, last) = (failures.Min(failure => failure.FirstAt), failures.Max(failure => failure.LastAt));
            var reports = log.GroupBy(line => FrameMath.FrameOf(line.GuestPhysicalAddress)).Select(lines => trapped.Contains(lines.Key)
                ? Hit(vm, memoryInstance, lines.Key, placementEpoch, first, last, lines.Count(), HitOutcomes.MceInjected)
                : Poison(vm, memoryInstance, lines.Key, lines.Any(line => line.ActionRequired), first));
            return ([.. reports], Math.Max(0, total - log.Count));
        }

        return log is null && trapped.Frames == 1
            ? ([.. failures.Select(failure => Hit(vm, memoryInstance, trapped.Ranges[0].Start, placementEpoch, failure.FirstAt, failure.LastAt, failure.Count, OutcomeOf(failure.Action)))], 0)
            : ([], total);
    }

    private static AgentReport Hit(string vm, long memoryInstance, long frame, long? placementEpoch, DateTimeOffset first, DateTimeOffset last, long count, string outcome) =>
        new(0, AgentReport.Hit, vm, memoryInstance, frame, null, null, null, placementEpoch, first, last, count, HitAccesses.Unknown, null, HitEvidences.Qmp, outcome);

    // Not one that Fleet trapped: the memory itself failed.
    private static AgentReport Poison(string vm, long memoryInstance, long frame, bool actionRequired, DateTimeOffset at) =>
        new(0, AgentReport.Poison, vm, memoryInstance, frame, FrameMath.FrameShift, actionRequired ? PageClasses.Srar : PageClasses.Srao, PageSources.Vmm, null,
            at, at, 1, null, null, null, null);

    private static string OutcomeOf(string action) => action switch
    {
        "inject" => HitOutcomes.MceInjected,
        "fatal" or "reset" => HitOutcomes.VmKilled,
        _ => HitOutcomes.Unknown,
    };
}
