using Fleet.HostAgent.Attach;
using Fleet.Linux;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.Enforce;

/// <summary>
/// Arms and disarms guest frames in a VMM on shared memory (memfd): register, zap, and with policy <c>marker</c> mark, in this
/// order, so that an access between two steps is an event and never data.
/// </summary>
public static class Enforcer
{
    // A page can be filled again between zap and mark by another mapping of the same memfd; each try starts with a new zap.
    private const int Tries = 8;
    private const string HardwarePoison = "hardware-poison";

    /// <summary>Arms the frames and verifies them.</summary>
    /// <returns>The frames that could not be armed, with the reason; empty when the kernel confirmed all of them.</returns>
    public static IReadOnlyList<ArmFailure> Arm(Attachment attachment, FrameSet frames, EnforcementPolicy policy = EnforcementPolicy.Marker)
    {
        var failures = new List<ArmFailure>();
        foreach (var range in frames.Ranges)
        {
            var located = attachment.Layout.Locate(range).ToList();
            if (located.Sum(part => part.Bytes) != range.Frames * Contracts.FrameMath.FrameBytes)
            {
                failures.Add(new ArmFailure(range, "frame-outside-memory"));
                continue;
            }

            failures.AddRange(located.Select(part => Arm(attachment, part, policy)).OfType<ArmFailure>());
        }

        return failures;
    }

    /// <summary>
    /// Registers frames that may be armed already: a marker enforces without it, but only a registered page whose marker is
    /// lost faults instead of reading zeros. Doing it twice changes nothing.
    /// </summary>
    /// <exception cref="LinuxException">UFFDIO_REGISTER failed.</exception>
    public static void Register(Attachment attachment, FrameSet frames)
    {
        foreach (var part in frames.Ranges.SelectMany(attachment.Layout.Locate))
        {
            Register(attachment, part);
        }
    }

    /// <summary>
    /// Makes the frames ordinary memory again, filled with zeros: the one way for a marker to leave a page of a running VMM,
    /// taken only for an explicit, audited clear.
    /// </summary>
    public static IReadOnlyList<ArmFailure> Disarm(Attachment attachment, FrameSet frames)
    {
        var failures = new List<ArmFailure>();
        foreach (var part in frames.Ranges.SelectMany(attachment.Layout.Locate))
        {
            try
            {
                if (!Disarm(attachment, part))
                {
                    failures.Add(new ArmFailure(RangeOf(part), HardwarePoison));
                }
            }
            catch (LinuxException exception)
            {
                failures.Add(new ArmFailure(RangeOf(part), Describe(exception)));
            }
        }

        return failures;
    }

    private static ArmFailure? Arm(Attachment attachment, HostRange part, EnforcementPolicy policy)
    {
        try
        {
            Register(attachment, part);
            for (var attempt = 1; ; attempt++)
            {
                Zap(attachment, part);
                var error = policy == EnforcementPolicy.Marker ? Mark(attachment, part) : Errno.None;
                if (MarkerVerifier.FindUnmarked(attachment, part, policy).Count == 0)
                {
                    return null;
                }

                if (attempt == Tries)
                {
                    return new ArmFailure(RangeOf(part), error == Errno.None ? "marker-not-confirmed" : $"UFFDIO_POISON: {error}");
                }
            }
        }
        catch (LinuxException exception)
        {
            return new ArmFailure(RangeOf(part), Describe(exception));
        }
    }

    private static void Register(Attachment attachment, HostRange part) =>
        attachment.Userfaultfd.Register(part.HostVirtualAddress, (ulong)part.Bytes, part.Region.Backing.RegisterMode);

    private static void Zap(Attachment attachment, HostRange part)
    {
        if (part.Region.Backing.File is { } file)
        {
            file.PunchHole(part.BackingOffset, part.Bytes);
        }
        else if (attachment.Zapper is { } zapper && zapper.Can(ZapMethod.DontNeed))
        {
            zapper.Zap(ZapMethod.DontNeed, [part]);
        }
        else
        {
            throw new LinuxException("madvise DONTNEED in the VMM", Errno.ENOTSUP);
        }
    }

    // POISON stops at a page that has a marker already, so it is told only the stretches that have none.
    private static Errno Mark(Attachment attachment, HostRange part)
    {
        var last = Errno.None;
        foreach (var stretch in MarkerVerifier.FindUnmarked(attachment, part))
        {
            var result = attachment.Userfaultfd.Poison(stretch.HostVirtualAddress, (ulong)stretch.Bytes);
            last = result.Succeeded ? last : result.Error;
        }

        return last;
    }

    // False where a page is poisoned natively: neither a punched hole nor a page given to it takes such an entry away from outside the process.
    private static bool Disarm(Attachment attachment, HostRange part)
    {
        var done = true;
        // ZEROPAGE replaces a marker on shared memory (FACTS 3), and wakes whoever waits. EEXIST: the page is ordinary already.
        for (long at = 0; at < part.Bytes; at += Contracts.FrameMath.FrameBytes)
        {
            var result = attachment.Userfaultfd.ZeroPage(part.HostVirtualAddress + (ulong)at, Contracts.FrameMath.FrameBytes);
            done &= result.Error != Errno.EEXIST || !MarkerVerifier.IsNative(attachment, part.HostVirtualAddress + (ulong)at);
            if (!result.Succeeded && result.Error is not (Errno.EEXIST or Errno.ENOENT))
            {
                throw new LinuxException("UFFDIO_ZEROPAGE", result.Error);
            }
        }

        attachment.Userfaultfd.Unregister(part.HostVirtualAddress, (ulong)part.Bytes);
        return done;
    }

    private static FrameRange RangeOf(HostRange part) =>
        new(part.FirstFrame, part.FirstFrame + (part.Bytes >> Contracts.FrameMath.FrameShift));

    /// <summary>A stable code, or call and errno.</summary>
    public static string Describe(LinuxException exception) => exception switch
    {
        { Call: "UFFDIO_REGISTER", Errno: Errno.EBUSY } => "busy-userfaultfd",
        _ => $"{exception.Call}: {exception.Errno}",
    };
}

/// <param name="Reason">A stable code, or call and errno.</param>
public sealed record ArmFailure(FrameRange Range, string Reason);
