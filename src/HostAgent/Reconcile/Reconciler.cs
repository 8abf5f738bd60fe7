using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Enforce;

namespace Fleet.HostAgent.Reconcile;

/// <summary>What must be done to a VMM, and what may be said of it.</summary>
/// <param name="Trap">What the journal must hold before anything is armed.</param>
/// <param name="Arm">Frames that are desired and carry no marker.</param>
/// <param name="Disarm">Frames that may be trapped and are desired no more.</param>
/// <param name="Lost">Frames that had been confirmed before and carry no marker now.</param>
public sealed record ReconcilePlan(FrameSet Trap, FrameSet Arm, FrameSet Disarm, FrameSet Lost);

/// <summary>Compares desired and observed state. Pure: whoever calls it has looked, and acts.</summary>
public static class Reconciler
{
    private const int MostExceptions = 10_000;

    /// <param name="desired">Frames of the desired set.</param>
    /// <param name="trapped">Frames that may be trapped, by the journal.</param>
    /// <param name="confirmed">Frames confirmed as marked the last time.</param>
    /// <param name="unmarked">Frames of the desired set that the kernel shows without a marker now.</param>
    public static ReconcilePlan Plan(FrameSet desired, FrameSet trapped, FrameSet confirmed, FrameSet unmarked) =>
        new(trapped.Union(desired), unmarked, trapped.Except(desired), confirmed.Except(confirmed.Except(unmarked)));

    /// <summary>The status of a VM after its plan was carried out.</summary>
    /// <param name="failures">Frames that are not as desired; empty when the kernel confirmed the whole set.</param>
    /// <param name="shiftAt">Size of the memory's pages at a frame, as a power of two: a page that is armed wider than it is desired is told as such.</param>
    public static VmStatus Status(DesiredVm desired, IReadOnlyList<ArmFailure> failures, Func<long, int?>? shiftAt = null)
    {
        if (failures.Count == 0)
        {
            return new VmStatus(
                desired.Vm, desired.MemoryInstance, desired.Generation, desired.Generation,
                PoisonDigest.Compute(desired.Vm, desired.MemoryInstance, desired.Pages), EnforcementStates.Armed, null,
                shiftAt is null ? [] : Wider(desired, shiftAt));
        }

        var failed = FrameSet.Of(failures.Select(failure => failure.Range));
        var exceptions = desired.Pages
            .Where(page => failed.Overlaps(new FrameRange(page.Frame, page.Frame + FrameMath.FramesOf(page.Shift))))
            .Take(MostExceptions)
            .Select(page => new PageException(page.Frame, page.Shift, EnforcementStates.Failed, null, ReasonFor(page, failures)))
            .ToList();
        return new VmStatus(
            desired.Vm, desired.MemoryInstance, desired.Generation, null, null, EnforcementStates.Failed, failures[0].Reason, exceptions);
    }

    /// <summary>The status of a VM for which nothing can be confirmed.</summary>
    public static VmStatus Unconfirmed(DesiredVm desired, string state, string reason) =>
        new(desired.Vm, desired.MemoryInstance, desired.Generation, null, null, state, reason, []);

    private static List<PageException> Wider(DesiredVm desired, Func<long, int?> shiftAt) =>
        [
            .. (from page in desired.Pages
                let shift = shiftAt(page.Frame)
                where shift > page.Shift
                select new PageException(page.Frame, page.Shift, EnforcementStates.Armed, shift, null)).Take(MostExceptions),
        ];

    private static string ReasonFor(PageKey page, IReadOnlyList<ArmFailure> failures)
    {
        var range = new FrameRange(page.Frame, page.Frame + FrameMath.FramesOf(page.Shift));
        return failures.First(failure => failure.Range.Overlaps(range)).Reason;
    }
}
