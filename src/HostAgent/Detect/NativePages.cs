using System.Numerics;
using Fleet.Contracts;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;
using Fleet.Linux;
using Fleet.Linux.Memory;

namespace Fleet.HostAgent.Detect;

/// <param name="PhysicalFrame">Host's frame behind it, in 4 KiB units; null where the page tables do not tell (hugetlb, or not mapped).</param>
/// <param name="BadFrame">Which 4 KiB of a larger page failed, counted from its start; null where that is not known.</param>
public sealed record NativePage(PageKey Page, long? PhysicalFrame, int? BadFrame = null)
{
    /// <summary>Whether an error of this frame can be the one behind the page.</summary>
    public bool MayBe(long physicalFrame) =>
        PhysicalFrame is { } known ? known == physicalFrame : BadFrame is { } bad && (physicalFrame & (FrameMath.FramesOf(Page.Shift) - 1)) == bad;
}

/// <summary>
/// Finds the pages of a VMM that this host's kernel has poisoned. Each is confirmed: by the hardware-poison flag of the frame in the entry,
/// or, where the kernel does not show the frame, by the backing file, which answers a read of such a page with EIO.
/// </summary>
public static class NativePages
{
    private const int BatchPages = 512;

    /// <summary>In page tables: what an access of the VMM or its guest would meet. The kernel walks them; only hits are looked at here.</summary>
    /// <exception cref="LinuxException">The process has ended.</exception>
    public static IReadOnlyList<NativePage> Find(Attachment attachment)
    {
        using var map = PageMap.Open(attachment.Vmm.Pid);
        RequireAlive(attachment);
        return [.. attachment.Layout.Regions.SelectMany(region => Scan(map, region).SelectMany(part => Look(attachment, map, part)))];
    }

    /// <summary>
    /// Pages in the backing files that no page table has and that cannot be read: an access is SIGBUS there too. It asks for each page that
    /// the VMM has not mapped, so it is for the rare moments when that matters: an error that was found nowhere, and the sweep.
    /// </summary>
    /// <exception cref="LinuxException">The process has ended.</exception>
    public static IReadOnlyList<NativePage> FindUnmapped(Attachment attachment)
    {
        using var map = PageMap.Open(attachment.Vmm.Pid);
        RequireAlive(attachment);
        return [.. attachment.Layout.Regions.Where(region => region.PageBytes == FrameMath.FrameBytes && region.Backing.File is not null)
            .SelectMany(region => DataOf(region, region.Backing.File!))
            .SelectMany(part => Entries(map, part).Where(page => page.Entry.IsEmpty && IsUnreadable(part.Region, page.At.BackingOffset)))
            .Select(page => new NativePage(new PageKey(page.At.FirstFrame, FrameMath.FrameShift), null))];
    }

    /// <summary>Those of one page.</summary>
    public static IReadOnlyList<NativePage> At(Attachment attachment, PageKey page)
    {
        using var map = PageMap.Open(attachment.Vmm.Pid);
        RequireAlive(attachment);
        return [.. attachment.Layout.Locate(new FrameRange(page.Frame, page.Frame + FrameMath.FramesOf(page.Shift))).SelectMany(part => Look(attachment, map, part))];
    }

    // A kernel before 6.7 cannot name them: then every entry is looked at.
    private static IEnumerable<HostRange> Scan(PageMap map, GuestRegion region)
    {
        IReadOnlyList<ScannedRange> found;
        try
        {
            found = PageScan.FindNotPresent(map, region.HostVirtualAddress, region.HostVirtualAddress + (ulong)region.Bytes);
        }
        catch (LinuxException exception) when (exception.Errno is Errno.ENOTTY or Errno.EINVAL)
        {
            return [new HostRange(region, 0, region.Bytes)];
        }

        return found.Select(range => new HostRange(region, range.Start - region.HostVirtualAddress, (long)(range.End - range.Start)));
    }

    private static IEnumerable<NativePage> Look(Attachment attachment, PageMap map, HostRange part) =>
        part.Region.PageBytes > FrameMath.FrameBytes
            ? LookHuge(attachment, part)
            : Entries(map, part).Where(page => NativePoison.Is(page.Entry))
                .Select(page => new NativePage(new PageKey(page.At.FirstFrame, FrameMath.FrameShift), (long)page.Entry.SwapOffset));

    // One bad frame costs the whole huge page: it cannot be split, and no part of it is mapped again.
    private static IEnumerable<NativePage> LookHuge(Attachment attachment, HostRange part)
    {
        var bytes = part.Region.PageBytes;
        var shift = BitOperations.Log2((uint)bytes);
        var first = (long)part.Offset / bytes;
        var end = ((long)part.Offset + part.Bytes + bytes - 1) / bytes;
        for (var number = first; number < end; number++)
        {
            var page = new HostRange(part.Region, (ulong)(number * bytes), bytes);
            var key = new PageKey(page.FirstFrame, shift);
            if (page.Region.Backing.File is null)
            {
                if (IsUnreadablePrivate(attachment, page, key))
                {
                    yield return new NativePage(key, null);
                }
            }
            else if (FirstUnreadable(page) is { } bad)
            {
                yield return new NativePage(key, null, bad);
            }
        }
    }

    private static int? FirstUnreadable(HostRange page)
    {
        for (var frame = 0; frame < page.Bytes / FrameMath.FrameBytes; frame++)
        {
            if (IsUnreadable(page.Region, page.BackingOffset + ((long)frame * FrameMath.FrameBytes)))
            {
                return frame;
            }
        }

        return null;
    }

    // Without a file only the process itself can be asked, and it answers the same for a marker: where this agent may have put one, that is what it is.
    private static bool IsUnreadablePrivate(Attachment attachment, HostRange page, PageKey key) =>
        !attachment.Trapped.Overlaps(new FrameRange(key.Frame, key.Frame + FrameMath.FramesOf(key.Shift)))
        && ProcessMemory.Read(attachment.Vmm.Pid, page.HostVirtualAddress, new byte[1]) is Errno.EFAULT or Errno.EHWPOISON;

    private static bool IsUnreadable(GuestRegion region, long offset) => region.Backing.File?.Probe(offset) is Errno.EIO or Errno.EHWPOISON;

    private static IEnumerable<(HostRange At, PageMapEntry Entry)> Entries(PageMap map, HostRange part)
    {
        var entries = new PageMapEntry[Math.Min(BatchPages, part.Bytes / FrameMath.FrameBytes)];
        for (long at = 0; at < part.Bytes; at += (long)entries.Length * FrameMath.FrameBytes)
        {
            var count = (int)Math.Min(entries.Length, (part.Bytes - at) / FrameMath.FrameBytes);
            map.Read(part.HostVirtualAddress + (ulong)at, entries.AsSpan(0, count));
            for (var i = 0; i < count; i++)
            {
                yield return (part.Slice(at + ((long)i * FrameMath.FrameBytes), FrameMath.FrameBytes), entries[i]);
            }
        }
    }

    private static IEnumerable<HostRange> DataOf(GuestRegion region, MemoryFile file)
    {
        var end = region.Backing.Offset + region.Bytes;
        for (var at = region.Backing.Offset; at < end && file.NextData(at) is var (start, stop) && start < end; at = stop)
        {
            yield return new HostRange(region, (ulong)(start - region.Backing.Offset), Math.Min(stop, end) - start);
        }
    }

    // Checked after the open: the map is then that of the process the descriptor stands for.
    private static void RequireAlive(Attachment attachment)
    {
        if (attachment.Process.HasExited())
        {
            throw new LinuxException("read pagemap", Errno.ESRCH);
        }
    }
}
