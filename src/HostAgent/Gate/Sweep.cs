using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Pages;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;

namespace Fleet.HostAgent.Gate;

/// <summary>Every page that a VMM cannot serve: what it was told to trap, the holes a stream left, and every marker its page tables hold.</summary>
public static class Sweep
{
    /// <summary>The pages of the desired set as they are there, all others in 4 KiB units.</summary>
    public static IReadOnlyList<PageKey> Unservable(Attachment attachment, DesiredVm desired)
    {
        var known = FrameSet.Of(desired.Pages);
        return Pages(desired.Pages, MarkerVerifier.FindMarked(attachment).Union(attachment.Undelivered).Except(known));
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
