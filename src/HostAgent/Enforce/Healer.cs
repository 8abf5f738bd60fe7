using Fleet.HostAgent.Attach;
using Fleet.Linux;

namespace Fleet.HostAgent.Enforce;

/// <summary>Makes trapped pages ordinary memory again, each kind of memory in its own way (FACTS 3). Pages that are ordinary already keep their content.</summary>
internal static class Healer
{
    /// <summary>The page keeps its marker while this VMM process lives: it goes with the guest's RAM.</summary>
    public const string NeedsGuestReset = "needs-guest-reset";

    /// <summary>This host's own memory_failure() poisoned the page: nothing from outside of the process takes that away.</summary>
    public const string HardwarePoison = "hardware-poison";

    // Another mapping of the file can fill the hole before ZEROPAGE does, and the marker then stays.
    private const int Tries = 8;

    /// <returns>Why it could not be done; null when the page is ordinary.</returns>
    public static ArmFailure? Heal(Attachment attachment, HostRange part)
    {
        try
        {
            for (var attempt = 1; attempt <= Tries; attempt++)
            {
                var marks = MarkerVerifier.FindMarked(attachment, part);
                if (attempt > 1 && marks.Count == 0)
                {
                    break;
                }

                foreach (var marked in marks)
                {
                    Unmark(attachment, marked);
                }

                if (EnforcementCell.ClassOf(part.Region.Backing) == MemoryClass.Memfd)
                {
                    // Whoever waits on a trap gets his page now, and not only at his next try.
                    Fill(part, "UFFDIO_ZEROPAGE", address => attachment.Userfaultfd.ZeroPage(address, (ulong)part.Region.PageBytes));
                }
            }

            Registration.Release(attachment, part);
            return MarkerVerifier.FindMarked(attachment, part) is not [var left, ..] ? null
                : new ArmFailure(left.Frames, MarkerVerifier.IsNative(attachment, left.HostVirtualAddress) ? HardwarePoison : NeedsGuestReset);
        }
        catch (LinuxException exception)
        {
            return new ArmFailure(part.Frames, Enforcer.Describe(exception));
        }
    }

    private static void Unmark(Attachment attachment, HostRange marked)
    {
        // The ways below act on registered memory only, and an agent may have died before it got there.
        Registration.Register(attachment, [marked]);
        switch (EnforcementCell.ClassOf(marked.Region.Backing))
        {
            case MemoryClass.Memfd:
                // The marker stays, but what the file holds there, from before a dont-need, is gone: without it ZEROPAGE replaces the marker.
                TryPunch(marked);
                break;
            case MemoryClass.Hugetlb when TryPunch(marked):
                // It took the marker along.
                break;
            default:
                // COPY is what replaces a marker in private memory. It needs a page, which may be missing among huge ones.
                Fill(marked, "UFFDIO_COPY", address => attachment.Userfaultfd.Copy(address, ZeroPages.Of(marked.Region.PageBytes)));
                break;
        }
    }

    private static bool TryPunch(HostRange part)
    {
        try
        {
            part.Region.Backing.File!.PunchHole(part.BackingOffset, part.Bytes);
            return true;
        }
        catch (LinuxException)
        {
            // Such as a memfd that is sealed: the look at the end tells what came of it.
            return false;
        }
    }

    private static void Fill(HostRange part, string call, Func<ulong, Linux.Userfaultfd.UffdResult> fill)
    {
        for (long at = 0; at < part.Bytes; at += part.Region.PageBytes)
        {
            var result = fill(part.HostVirtualAddress + (ulong)at);

            // EEXIST: the page is ordinary already. ENOENT: it was journalled, but the agent died before it was registered.
            if (!result.Succeeded && result.Error is not (Errno.EEXIST or Errno.ENOENT))
            {
                throw new LinuxException(call, result.Error);
            }
        }
    }
}
