using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Pages;
using Fleet.HostAgent.Attach;

namespace Fleet.HostAgent.Observe;

/// <summary>Turns what a VMM says on its line channel into reports. Pure.</summary>
public static class VmmEventReports
{
    // Of one event, whose counts are added up: more machine checks than any VMM injects between two lines.
    private const long MostAccesses = 1_000_000_000;

    /// <summary>Whether the event is well-formed and lies in the VMM's memory.</summary>
    public static bool IsValid(VmmEvent vmmEvent, GuestLayout layout)
    {
        if (vmmEvent.Sequence < 1 || vmmEvent.Count is < 1 or > MostAccesses || !HexAddress.TryParse(vmmEvent.GuestPhysicalAddress, out var address))
        {
            return false;
        }

        var frame = FrameMath.FrameOf(address);
        return vmmEvent.Type switch
        {
            VmmEvent.Poison => vmmEvent.Shift is { } shift && FrameMath.IsPageShift(shift) && IsInMemory(layout, FrameMath.PageFrame(frame, shift), shift)
                && (vmmEvent.Class is null || PageClasses.IsValid(vmmEvent.Class)),
            VmmEvent.MceInjected => IsInMemory(layout, frame, FrameMath.FrameShift)
                && (vmmEvent.Access is null || HitAccesses.IsValid(vmmEvent.Access)),
            _ => false,
        };
    }

    /// <summary>The reports for a batch of valid events: every poison, and the hits behind it.</summary>
    /// <param name="hits">What is to be reported of <see cref="Hits"/>.</param>
    /// <param name="memoryInstance">Of the attachment.</param>
    /// <param name="placementEpoch">The newest known; 0 when none is.</param>
    /// <param name="origin">Of poison, as <see cref="PoisonOrigins"/>; null for a VMM without a barrier.</param>
    public static IReadOnlyList<AgentReport> Build(
        IReadOnlyList<VmmEvent> events, IReadOnlyList<ObservedAccess> hits, string vm, long memoryInstance, long placementEpoch, string? origin = null) =>
    [
        .. events.Where(vmmEvent => vmmEvent.Type == VmmEvent.Poison).Select(vmmEvent => Poison(vmmEvent, vm, memoryInstance, origin)),
        .. hits.Select(hit => hit.ToReport(vm, memoryInstance, placementEpoch)),
    ];

    /// <summary>The machine checks of a batch, those of one frame and kind as one.</summary>
    public static IEnumerable<ObservedAccess> Hits(IEnumerable<VmmEvent> events) =>
        events.Where(vmmEvent => vmmEvent.Type == VmmEvent.MceInjected)
            .GroupBy(vmmEvent => (Frame: FrameOf(vmmEvent), vmmEvent.Access, vmmEvent.Vcpu))
            .Select(group => new ObservedAccess(
                group.Key.Frame, group.Key.Access ?? HitAccesses.Unknown, group.Key.Vcpu, HitEvidences.Vmm, HitOutcomes.MceInjected,
                group.Sum(vmmEvent => vmmEvent.Count), group.Min(vmmEvent => vmmEvent.At), group.Max(vmmEvent => vmmEvent.At)));

    /// <summary>The pages that the VMM says have failed.</summary>
    public static IEnumerable<PageKey> PoisonedPages(IEnumerable<VmmEvent> events) =>
        events.Where(vmmEvent => vmmEvent.Type == VmmEvent.Poison)
            .Select(vmmEvent => new PageKey(FrameMath.PageFrame(FrameOf(vmmEvent), vmmEvent.Shift!.Value), vmmEvent.Shift.Value));

    private static AgentReport Poison(VmmEvent vmmEvent, string vm, long memoryInstance, string? origin)
    {
        var shift = vmmEvent.Shift!.Value;
        return new AgentReport(
            0, AgentReport.Poison, vm, memoryInstance, FrameMath.PageFrame(FrameOf(vmmEvent), shift), shift,
            vmmEvent.Class ?? PageClasses.Unknown, PageSources.Vmm, null, vmmEvent.At, vmmEvent.At, 1, null, null, null, null, origin);
    }

    private static long FrameOf(VmmEvent vmmEvent) =>
        HexAddress.TryParse(vmmEvent.GuestPhysicalAddress, out var address) ? FrameMath.FrameOf(address) : throw new ArgumentException("not a valid event", nameof(vmmEvent));

    private static bool IsInMemory(GuestLayout layout, long frame, int shift) =>
        layout.Locate(new Enforce.FrameRange(frame, frame + FrameMath.FramesOf(shift))).Sum(part => part.Bytes) == 1L << shift;
}
