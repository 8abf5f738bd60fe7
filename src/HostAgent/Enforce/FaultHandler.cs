using Fleet.Contracts;
using Fleet.HostAgent.Attach;
using Fleet.Linux;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.Enforce;

/// <summary>
/// Answers the page-fault events of an attached VMM. With policy <c>marker</c> one arrives only when an access falls between
/// zap and mark, or when a marker was lost: then it is answered with the marker. The retried access meets it and is seen as a
/// machine check, so it is not counted here a second time.
/// </summary>
public sealed class FaultHandler(Attachment attachment, Action needsReconcile)
{
    public void Handle(ReadOnlySpan<UffdEvent> events)
    {
        foreach (var uffdEvent in events)
        {
            switch (uffdEvent.Kind)
            {
                case UffdEventKind.PageFault:
                    Answer(uffdEvent);
                    break;
                case UffdEventKind.Remove or UffdEventKind.Unmap:
                    // The VMM gave memory back; markers in it may be gone.
                    needsReconcile();
                    break;
            }
        }
    }

    private void Answer(UffdEvent fault)
    {
        var page = fault.Address & ~(ulong)(FrameMath.FrameBytes - 1);
        var poisoned = attachment.Layout.FrameAt(page) is { } frame && attachment.Trapped.Contains(frame);
        var result = poisoned ? attachment.Userfaultfd.Poison(page, FrameMath.FrameBytes)
            : fault.Minor ? attachment.Userfaultfd.Continue(page, FrameMath.FrameBytes)
            : attachment.Userfaultfd.ZeroPage(page, FrameMath.FrameBytes);

        if (poisoned)
        {
            needsReconcile();
        }

        if (result.Error is Errno.EEXIST or Errno.EAGAIN or Errno.ENOENT)
        {
            // Resolved by somebody else, or a mapping change is under way: the thread retries its access and faults again if need be.
            attachment.Userfaultfd.Wake(page, FrameMath.FrameBytes);
        }
        else if (!result.Succeeded)
        {
            throw new LinuxException(poisoned ? "UFFDIO_POISON" : fault.Minor ? "UFFDIO_CONTINUE" : "UFFDIO_ZEROPAGE", result.Error);
        }
    }
}
