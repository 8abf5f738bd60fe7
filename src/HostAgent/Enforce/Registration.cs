using Fleet.HostAgent.Attach;
using Fleet.Linux;

namespace Fleet.HostAgent.Enforce;

/// <summary>
/// Registers guest memory with the VMM's userfaultfd: exactly the ranges that are armed, or whole regions (<see cref="Attachment.WholeRegions"/>).
/// Doing it again changes nothing.
/// </summary>
internal static class Registration
{
    /// <returns>The parts that could not be registered, with the reason.</returns>
    public static IReadOnlyList<ArmFailure> TryRegister(Attachment attachment, IReadOnlyList<HostRange> parts)
    {
        var failures = new List<ArmFailure>();
        foreach (var group in parts.GroupBy(part => Registered(attachment, part)))
        {
            try
            {
                attachment.Userfaultfd.Register(group.Key.HostVirtualAddress, (ulong)group.Key.Bytes, group.Key.Region.Backing.RegisterMode);
            }
            catch (LinuxException exception)
            {
                failures.AddRange(group.Select(part => new ArmFailure(part.Frames, Enforcer.Describe(exception))));
            }
        }

        return failures;
    }

    /// <exception cref="LinuxException">UFFDIO_REGISTER failed.</exception>
    public static void Register(Attachment attachment, IEnumerable<HostRange> parts)
    {
        foreach (var range in parts.Select(part => Registered(attachment, part)).Distinct())
        {
            attachment.Userfaultfd.Register(range.HostVirtualAddress, (ulong)range.Bytes, range.Region.Backing.RegisterMode);
        }
    }

    /// <summary>Wakes whoever waits on the part and lets go of it; a whole region stays registered.</summary>
    /// <exception cref="LinuxException">UFFDIO_UNREGISTER failed.</exception>
    public static void Release(Attachment attachment, HostRange part)
    {
        if (attachment.WholeRegions)
        {
            attachment.Userfaultfd.Wake(part.HostVirtualAddress, (ulong)part.Bytes);
        }
        else
        {
            attachment.Userfaultfd.Unregister(part.HostVirtualAddress, (ulong)part.Bytes);
        }
    }

    private static HostRange Registered(Attachment attachment, HostRange part) =>
        attachment.WholeRegions ? new HostRange(part.Region, 0, part.Region.Bytes) : part;
}
