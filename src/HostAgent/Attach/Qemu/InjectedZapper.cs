using Fleet.HostAgent.Enforce;
using Fleet.Linux.Processes;
using Fleet.Linux.Ptrace;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>Zaps memory without a file in a VMM that does not take part: by madvise(2) calls injected into it.</summary>
public sealed class InjectedZapper(ProcessIdentity vmm, Action<TimeSpan> onStopped) : IZapper
{
    // The VMM's thread stands still meanwhile: a few microseconds for each range.
    private const int RangesPerStop = 64;

    public bool Can(ZapMethod method) => method == ZapMethod.DontNeed;

    /// <inheritdoc/>
    public void Zap(ZapMethod method, IReadOnlyList<HostRange> ranges, ZapBudget budget)
    {
        if (!Can(method))
        {
            throw new Linux.LinuxException($"{method} in the VMM", Linux.Errno.ENOTSUP);
        }

        foreach (var some in ranges.Chunk(RangesPerStop))
        {
            // A call that blocks in the kernel is waited for by itself (RemoteCall), so that the budget is exceeded once at most.
            if (budget.Left <= TimeSpan.Zero)
            {
                throw new Linux.LinuxException("madvise DONTNEED in the VMM", Linux.Errno.ETIMEDOUT);
            }

            onStopped(RemoteCall.DontNeed(vmm, [.. some.Select(range => (range.HostVirtualAddress, (ulong)range.Bytes))]).Stopped);
        }
    }
}
