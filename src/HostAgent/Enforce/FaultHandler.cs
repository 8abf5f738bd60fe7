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

    public void Handle(ReadOnlySpan<UffdEvent> events)
    {
        foreach (var uffdEvent in events)
        {
            switch (uffdEvent.Kind)
            {
                case UffdEventKind.PageFault:
                    Answer(uffdEvent);
                    break;
                case UffdEventKind.Remove or UffdEventKind.Unmap or UffdEventKind.Remap:
                    // The VMM gave memory back, or put other memory in its place; markers in it may be gone.
                    needsReconcile();
                    break;
            }
        }
    }

    private void Answer(UffdEvent fault)
    {
        if (attachment.Layout.PageAt(fault.Address) is not { } page)
        {
            // Not of the guest: the VMM registered it for a purpose of its own.
            return;
        }

        string call;
        UffdResult result;
        lock (attachment.Answering)
        {
            (call, result) = Resolve(page, fault.Minor);
        }

        if (result.Error is Errno.EEXIST or Errno.EAGAIN or Errno.ENOENT)
        {
            // Resolved by somebody else, or a mapping change is under way: the thread retries its access and faults again if need be.
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
