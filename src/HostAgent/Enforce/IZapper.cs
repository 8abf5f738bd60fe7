using Fleet.HostAgent.Attach;

namespace Fleet.HostAgent.Enforce;

/// <summary>How the page-table entries of guest memory, and what they map, are removed.</summary>
public enum ZapMethod
{
    /// <summary>fallocate(FALLOC_FL_PUNCH_HOLE) on the file; the agent does it by itself, whatever the VMM does.</summary>
    PunchHole,

    /// <summary>madvise(MADV_DONTNEED), inside of the VMM's address space.</summary>
    DontNeed,

    /// <summary>Another mapping takes the place of the old one, inside of the VMM's address space.</summary>
    Remap,
}

/// <summary>
/// Zaps that only the VMM process itself can carry out: it does so when it is told, or a system call is injected into it. No process may do
/// it to another (process_madvise(2) refuses MADV_DONTNEED).
/// </summary>
public interface IZapper
{
    bool Can(ZapMethod method);

    /// <summary>
    /// The ranges are registered with the userfaultfd before, and are zapped when it returns. Called with the VM's gate held, on a thread that
    /// may wait, but not for long: other VMs wait with it.
    /// </summary>
    /// <param name="ranges">Ranges of the VMM's address space, in whole pages of their backing.</param>
    /// <param name="budget">What may be spent on waiting; nothing is begun when it is used up.</param>
    /// <exception cref="Linux.LinuxException">It was not done, or not for all of them; its call and errno are reported as the reason.</exception>
    void Zap(ZapMethod method, IReadOnlyList<HostRange> ranges, ZapBudget budget);
}
