using Fleet.HostAgent.Attach;
using Fleet.Linux;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.Enforce;

/// <summary>
/// Answers the page-fault events of an attached VMM. With policy <c>marker</c> one arrives for a poisoned page only when an access falls
/// between zap and mark, or when a marker was lost: then it is answered with the marker. The retried access meets it and is seen as a
/// machine check, so it is not counted here a second time. Every other page is resolved as the kernel would have.
/// </summary>
public sealed class FaultHandler(Attachment attachment, Action needsReconcile)
{
    /// <summary>For tests: between the look at what is trapped and the answer.</summary>
    internal Action? Decided { get; init; }

    /// <summary>One event that cannot be answered keeps none of the others waiting: an event is read once.</summary>
    /// <exception cref="LinuxException">At the end: the last one that could not be answered. Its thread is woken at the next look.</exception>
    public void Handle(ReadOnlySpan<UffdEvent> events)
    {
        LinuxException? failure = null;
        foreach (var uffdEvent in events)
        {
            switch (uffdEvent.Kind)
            {
                case UffdEventKind.PageFault when attachment.Layout.PageAt(uffdEvent.Address) is { } page:
                    failure = TryAnswer(page, uffdEvent.Minor) ?? failure;
                    break;
                case UffdEventKind.PageFault:
                    // Not of the guest: the VMM registered it for a purpose of its own.
                    break;
                case UffdEventKind.Remove or UffdEventKind.Unmap or UffdEventKind.Remap:
                    // The VMM gave memory back, or put other memory in its place; markers in it may be gone.
                    attachment.LookAgain();
                    needsReconcile();
                    break;
            }
        }

        if (failure is not null)
        {
            throw failure;
        }
    }

    private LinuxException? TryAnswer(HostRange page, bool minor)
    {
        try
        {
            Answer(page, minor);
            return null;
        }
        catch (LinuxException exception)
        {
            attachment.Unanswered.Add(page.HostVirtualAddress, (ulong)page.Bytes);
            return exception;
        }
    }

    private void Answer(HostRange page, bool minor)
    {
        string call;
        UffdResult result;
        lock (attachment.Answering)
        {
            (call, result) = Resolve(page, minor);
        }

        if (result.Error is Errno.EEXIST or Errno.EAGAIN or Errno.ENOENT || (minor && result.Error == Errno.EFAULT))
        {
            // Resolved by somebody else, a mapping change is under way, or the file has no page there any more: the thread retries its
            // access and faults again if need be.
            attachment.Userfaultfd.Wake(page.HostVirtualAddress, (ulong)page.Bytes);
        }
        else if (!result.Succeeded)
        {
            throw new LinuxException(call, result.Error);
        }
    }

    private (string Call, UffdResult Result) Resolve(HostRange page, bool minor)
    {
        var (address, bytes) = (page.HostVirtualAddress, (ulong)page.Bytes);
        var isTrapped = attachment.Trapped.Overlaps(page.Frames) && !attachment.Healing.Overlaps(page.Frames);
        Decided?.Invoke();
        if (isTrapped)
        {
            needsReconcile();
            return ("UFFDIO_POISON", attachment.Userfaultfd.Poison(address, bytes));
        }

        return minor ? ("UFFDIO_CONTINUE", attachment.Userfaultfd.Continue(address, bytes))
            : page.Region.IsHuge ? ("UFFDIO_COPY", attachment.Userfaultfd.Copy(address, ZeroPages.Of(page.Region.PageBytes)))
            : ("UFFDIO_ZEROPAGE", attachment.Userfaultfd.ZeroPage(address, bytes));
    }
}
