using Fleet.Contracts.Handoff;
using Fleet.Linux;
using Fleet.Linux.Userfaultfd;
using Fleet.TinyVmm.Memory;

namespace Fleet.TinyVmm.Handoff;

/// <summary>Carries out an agent's <c>zap</c>.</summary>
internal static class ZapOrder
{
    public static VmmZapped Carry(AgentLine line, GuestMemory memory, UserfaultfdHandle userfaultfd)
    {
        try
        {
            foreach (var (region, start, bytes) in (line.Frames ?? []).Select(frames => Locate(frames, memory)))
            {
                switch (line.Method)
                {
                    case AgentLine.DontNeed:
                        region.ZapDontNeed(start, bytes);
                        break;
                    case AgentLine.Remap:
                        region.ZapRemap(start, bytes, userfaultfd);
                        break;
                    default:
                        throw new LinuxException("zap", Errno.EINVAL);
                }
            }

            return new VmmZapped(VmmZapped.ZappedType, line.Sequence);
        }
        catch (LinuxException exception)
        {
            return new VmmZapped(VmmZapped.ZappedType, line.Sequence, exception.Errno.ToString());
        }
    }

    private static (GuestRegion Region, ulong Start, ulong Bytes) Locate(HandoffFrames frames, GuestMemory memory)
    {
        if (frames is null || frames.Start < 0 || frames.End <= frames.Start || frames.End > (long)(MemoryLayout.MaximumAddress / MemoryLayout.PageBytes))
        {
            throw new LinuxException("zap", Errno.EINVAL);
        }

        var (start, bytes) = ((ulong)frames.Start * MemoryLayout.PageBytes, (ulong)(frames.End - frames.Start) * MemoryLayout.PageBytes);
        return memory.Find(start, bytes) is { } region ? (region, start, bytes) : throw new LinuxException("zap", Errno.EINVAL);
    }
}
