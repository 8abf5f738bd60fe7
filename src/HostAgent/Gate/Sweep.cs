using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Pages;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Enforce;

namespace Fleet.HostAgent.Gate;

/// <summary>
/// Every page that a VMM cannot serve: what it was told to trap, the holes a stream left, every marker and every hardware poison that its page
/// tables hold, and what its memory files cannot give.
/// </summary>
public static class Sweep
{
    /// <summary>The pages of the desired set as they are there, poisoned huge pages whole, all others in 4 KiB units.</summary>
    public static IReadOnlyList<PageKey> Unservable(Attachment attachment, DesiredVm desired)
    {
        // The kernel's events may have been missed: this is the last look before another host serves what this one cannot.
        var native = NativePages.Find(attachment).Concat(NativePages.FindUnmapped(attachment)).Select(page => page.Page).ToList();
        var huge = native.Where(page => page.Shift > FrameMath.FrameShift && !desired.Pages.Contains(page)).Distinct();
        List<PageKey> known = [.. desired.Pages, .. huge];
        var others = MarkerVerifier.FindMarked(attachment).Union(attachment.Undelivered).Union(FrameSet.Of(native));
        return Pages(known, others.Except(FrameSet.Of(known)));
    }

    /// <summary>The known pages as they are, all other frames as pages of 4 KiB; by frame.</summary>
    public static IReadOnlyList<PageKey> Pages(IReadOnlyList<PageKey> known, FrameSet others) =>
        [
            .. known
                .Concat(others.Ranges.SelectMany(range => Frames(range)).Select(frame => new PageKey(frame, FrameMath.FrameShift)))
                .OrderBy(page => page.Frame),
        ];

    public static IEnumerable<AgentReport> Reports(DesiredVm desired, IEnumerable<PageKey> pages, string origin, DateTimeOffset now) =>
        pages.Select(page => new AgentReport(
            0, AgentReport.Poison, desired.Vm, desired.MemoryInstance, page.Frame, page.Shift, PageClasses.Unknown, PageSources.Vmm,
            desired.PlacementEpoch, now, now, 1, null, null, null, null, origin));

    private static IEnumerable<long> Frames(FrameRange range)
    {
        for (var frame = range.Start; frame < range.End; frame++)
        {
            yield return frame;
        }
    }
}
