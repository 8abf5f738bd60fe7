using Fleet.Contracts;
using Fleet.HostAgent.Attach;
using Fleet.Linux;

namespace Fleet.HostAgent.Enforce;

/// <summary>
/// Arms and disarms guest frames in a VMM: register, zap, and with policy <c>marker</c> mark, in this order, so that an access
/// between two steps is an event and never data.
/// </summary>
public static class Enforcer
{
    // A page can be filled again between zap and mark by another mapping of the same memfd; each try starts with a new zap.
    private const int Tries = 8;

    /// <summary>Nobody is there who could zap this memory: the VMM is not connected, or does not know how.</summary>
    public const string NoZapper = "no-zapper";

    /// <summary>This kernel has no way to enforce memory of this kind with this policy; as in an answer to a handoff.</summary>
    public const string Unsupported = "unsupported-backing";

    /// <summary>Arms the frames, of huge pages the whole page, and verifies them.</summary>
    /// <param name="table">What may be done; null for what this kernel was seen to do.</param>
    /// <param name="budget">For the VMM's part; null for a new one.</param>
    /// <returns>The frames that could not be armed, with the reason; empty when the kernel confirmed all of them.</returns>
    public static IReadOnlyList<ArmFailure> Arm(
        Attachment attachment, FrameSet frames, EnforcementPolicy policy = EnforcementPolicy.Marker, EnforcementTable? table = null,
        ZapBudget? budget = null)
    {
        budget ??= new ZapBudget(TimeProvider.System);
        attachment.Healing = FrameSet.Empty;
        var failures = new List<ArmFailure>();
        var parts = new List<HostRange>();
        foreach (var range in attachment.Layout.Widen(frames).Ranges)
        {
            var located = attachment.Layout.Locate(range).ToList();
            if (located.Sum(part => part.Bytes) == range.Frames * FrameMath.FrameBytes)
            {
                parts.AddRange(located);
            }
            else
            {
                failures.Add(new ArmFailure(range, "frame-outside-memory"));
            }
        }

        var unregistered = Registration.TryRegister(attachment, parts);
        failures.AddRange(unregistered);
        var skipped = unregistered.Select(failure => failure.Range).ToHashSet();
        parts.RemoveAll(part => skipped.Contains(part.Frames));
        foreach (var region in parts.GroupBy(part => part.Region))
        {
            failures.AddRange(Arm(attachment, region.Key, [.. region], policy, table ?? EnforcementTable.OfThisHost, budget));
        }

        return failures;
    }

    /// <summary>
    /// Registers frames that may be armed already: a marker enforces without it, but only a registered page whose marker is
    /// lost faults instead of reading zeros. Doing it twice changes nothing.
    /// </summary>
    /// <exception cref="LinuxException">UFFDIO_REGISTER failed.</exception>
    public static void Register(Attachment attachment, FrameSet frames) =>
        Registration.Register(attachment, attachment.Layout.Widen(frames).Ranges.SelectMany(attachment.Layout.Locate));

    /// <summary>
    /// Makes the frames ordinary memory again: the one way for a marker to leave a page of a running VMM, taken only for an
    /// explicit, audited clear. Of huge pages the frames must be whole pages. Until the caller has taken them out of
    /// <see cref="Attachment.Trapped"/> they stay in <see cref="Attachment.Healing"/>.
    /// </summary>
    public static IReadOnlyList<ArmFailure> Disarm(Attachment attachment, FrameSet frames)
    {
        attachment.Healing = frames;
        return [.. frames.Ranges.SelectMany(attachment.Layout.Locate).Select(part => Healer.Heal(attachment, part)).OfType<ArmFailure>()];
    }

    private static IEnumerable<ArmFailure> Arm(
        Attachment attachment, GuestRegion region, IReadOnlyList<HostRange> parts, EnforcementPolicy policy, EnforcementTable table, ZapBudget budget)
    {
        var zap = new Zap(attachment, region, policy, table, budget);
        if (zap.WhyNot is { } whyNot)
        {
            return Failures(parts, whyNot);
        }

        var left = parts;
        var reason = "marker-not-confirmed";
        try
        {
            for (var attempt = 1; attempt <= Tries && left.Count > 0; attempt++)
            {
                zap.Carry(left);
                if (policy == EnforcementPolicy.Marker && Mark(attachment, left) is var error and not Errno.None)
                {
                    reason = $"UFFDIO_POISON: {error}";
                }

                left = [.. left.SelectMany(part => MarkerVerifier.FindUnmarked(attachment, part, policy))];
            }
        }
        catch (LinuxException exception)
        {
            reason = Describe(exception);
            left = region.Backing.File is null ? Rest(attachment, left, policy) : left;
        }

        return Failures(left, reason);
    }

    // Of a zap that the VMM ended half-way: what was done is marked, so that the next look has less to do. Private memory only: there is no
    // other way for its entry to be empty than that the page is gone.
    private static IReadOnlyList<HostRange> Rest(Attachment attachment, IReadOnlyList<HostRange> parts, EnforcementPolicy policy)
    {
        try
        {
            if (policy == EnforcementPolicy.Marker)
            {
                Mark(attachment, parts);
            }

            return [.. parts.SelectMany(part => MarkerVerifier.FindUnmarked(attachment, part, policy))];
        }
        catch (LinuxException)
        {
            // The VMM has ended, or cannot be looked at: nothing is claimed.
            return parts;
        }
    }

    private static IEnumerable<ArmFailure> Failures(IEnumerable<HostRange> parts, string reason) => parts.Select(part => new ArmFailure(part.Frames, reason));

    // POISON stops at a page that has a marker already, so it is told only the stretches that have none.
    private static Errno Mark(Attachment attachment, IReadOnlyList<HostRange> parts)
    {
        var last = Errno.None;
        foreach (var stretch in parts.SelectMany(part => MarkerVerifier.FindUnmarked(attachment, part)))
        {
            var result = attachment.Userfaultfd.Poison(stretch.HostVirtualAddress, (ulong)stretch.Bytes);
            last = result.Succeeded ? last : result.Error;
        }

        return last;
    }

    /// <summary>A stable code, or call and errno.</summary>
    public static string Describe(LinuxException exception) => exception switch
    {
        { Call: "UFFDIO_REGISTER", Errno: Errno.EBUSY } => "busy-userfaultfd",
        _ => $"{exception.Call}: {exception.Errno}",
    };
}

/// <param name="Reason">A stable code, or call and errno.</param>
public sealed record ArmFailure(FrameRange Range, string Reason);
