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
    public void Zap(ZapMethod method, IReadOnlyList<HostRange> ranges)
    {
        if (!Can(method))
        {
            throw new Linux.LinuxException($"{method} in the VMM", Linux.Errno.ENOTSUP);
        }

        foreach (var some in ranges.Chunk(RangesPerStop))
        {
            onStopped(RemoteCall.DontNeed(vmm, [.. some.Select(range => (range.HostVirtualAddress, (ulong)range.Bytes))]).Stopped);
        }
    }
}
