using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Pages;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Observe;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>Memory failures of one kind that QEMU told by QMP.</summary>
/// <param name="Action">As in <see cref="QmpMemoryFailure"/>.</param>
public sealed record QemuFailures(string Action, long Count, DateTimeOffset FirstAt, DateTimeOffset LastAt);

/// <summary>A line of QEMU's log that names the guest address of a memory failure.</summary>
/// <param name="ActionRequired">BUS_MCEERR_AR: the guest accessed it, as against an error that was found meanwhile (AO).</param>
public sealed record QemuLogEntry(ulong GuestPhysicalAddress, bool ActionRequired);

/// <param name="Hits">Accesses to pages that Fleet trapped.</param>
/// <param name="Poison">Pages that failed by themselves: new poison.</param>
/// <param name="Unplaced">Failures that could be any of several pages.</param>
public sealed record QemuFindings(IReadOnlyList<ObservedAccess> Hits, IReadOnlyList<AgentReport> Poison, long Unplaced)
{
    public static readonly QemuFindings None = new([], [], 0);
}

/// <summary>Makes of what QEMU says of memory failures what is to be reported. Pure.</summary>
public static class QemuFailureReports
{
    /// <param name="trapped">Frames that may carry a marker in this QEMU.</param>
    /// <param name="log">The log's lines of the same time; null where the log is not read.</param>
    /// <remarks>
    /// With several armed pages and no log an event says only that one of them was touched, and is never guessed: the kernel's tracepoints tell
    /// which.
    /// </remarks>
    public static QemuFindings Build(IReadOnlyList<QemuFailures> failures, IReadOnlyList<QemuLogEntry>? log, FrameSet trapped, string vm, long memoryInstance)
    {
        if (failures.Count == 0)
        {
            return QemuFindings.None;
        }

        var total = failures.Sum(failure => failure.Count);
        if (log is { Count: > 0 })
        {
            var (first, last) = (failures.Min(failure => failure.FirstAt), failures.Max(failure => failure.LastAt));
            var frames = log.ToLookup(line => FrameMath.FrameOf(line.GuestPhysicalAddress));
            return new QemuFindings(
                [.. frames.Where(lines => trapped.Contains(lines.Key)).Select(lines => Hit(lines.Key, HitOutcomes.MceInjected, lines.Count(), first, last))],
                [.. frames.Where(lines => !trapped.Contains(lines.Key)).Select(lines => Poison(vm, memoryInstance, lines.Key, lines.Any(line => line.ActionRequired), first))],
                Math.Max(0, total - log.Count));
        }

        return log is null && trapped.Frames == 1
            ? new QemuFindings([.. failures.Select(failure => Hit(trapped.Ranges[0].Start, OutcomeOf(failure.Action), failure.Count, failure.FirstAt, failure.LastAt))], [], 0)
            : new QemuFindings([], [], total);
    }

    private static ObservedAccess Hit(long frame, string outcome, long count, DateTimeOffset first, DateTimeOffset last) =>
        new(frame, HitAccesses.Unknown, null, HitEvidences.Qmp, outcome, count, first, last);

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
