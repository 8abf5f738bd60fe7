using Fleet.Contracts;
using Fleet.HostAgent.Attach;
using Fleet.Linux;
using Fleet.Linux.Memory;

namespace Fleet.HostAgent.Enforce;

/// <summary>
/// Asks the kernel which frames carry a poison marker in the VMM's own page tables, now. It is the only ground on which a
/// frame is ever called armed (DESIGN 8): it also catches a userfaultfd that belongs to another process than it claimed. A page that this
/// host's own memory_failure() poisoned enforces by itself: it counts as it stands and is never zapped (GATE).
/// </summary>
public static class MarkerVerifier
{
    private const int BatchPages = 512;

    /// <summary>The frames of the set that carry no marker; of huge pages the whole page.</summary>
    /// <exception cref="LinuxException">The process has ended, or may not be looked at.</exception>
    /// <remarks>
    /// With policy <c>trap</c> an empty entry counts as well: the caller has registered the frames just before, so that an
    /// access is an event.
    /// </remarks>
    public static FrameSet FindUnmarked(Attachment attachment, FrameSet frames, EnforcementPolicy policy = EnforcementPolicy.Marker)
    {
        var located = frames.Ranges.SelectMany(attachment.Layout.Locate).ToList();
        var outside = frames.Except(FrameSet.Of(located.Select(part => part.Frames)));
        return FrameSet.Of(located.SelectMany(part => FindUnmarked(attachment, part, policy)).Select(part => part.Frames)).Union(outside);
    }

    /// <summary>All frames of the guest's memory that carry a marker or are poisoned natively; reads the page tables of all of it (8 bytes a page).</summary>
    public static FrameSet FindMarked(Attachment attachment) => FrameSet.Of(attachment.Layout.Regions
        .SelectMany(region => FindMarked(attachment, new HostRange(region, 0, region.Bytes))).Select(part => part.Frames));

    /// <summary>The stretches of the range that carry a marker or are poisoned natively, in order.</summary>
    public static IReadOnlyList<HostRange> FindMarked(Attachment attachment, HostRange range)
    {
        using var pageMap = Open(attachment);
        return range.Region.IsHuge ? HugeMarks(attachment, pageMap, range) : Find(pageMap, range, entry => entry.IsPoisonMarker || NativePoison.Is(entry));
    }

    /// <summary>Whether the page there is this host's own poison.</summary>
    public static bool IsNative(Attachment attachment, ulong hostVirtualAddress)
    {
        using var pageMap = PageMap.Open(attachment.Vmm.Pid);
        return NativePoison.Is(pageMap.Read(hostVirtualAddress));
    }

    /// <summary>The stretches of the range that carry no marker, in order.</summary>
    public static IReadOnlyList<HostRange> FindUnmarked(Attachment attachment, HostRange range, EnforcementPolicy policy = EnforcementPolicy.Marker)
    {
        using var pageMap = Open(attachment);
        if (!range.Region.IsHuge)
        {
            return Find(pageMap, range, entry => !entry.IsPoisonMarker && !(policy == EnforcementPolicy.Trap && entry.IsEmpty) && !NativePoison.Is(entry));
        }

        // A huge page counts as a whole, however little of it is asked for.
        var whole = range.Widen();
        return policy == EnforcementPolicy.Trap ? Find(pageMap, whole, entry => !entry.IsEmpty) : Complement(whole, HugeMarks(attachment, pageMap, whole));
    }

    private static PageMap Open(Attachment attachment)
    {
        var pageMap = PageMap.Open(attachment.Vmm.Pid);
        if (attachment.Process.HasExited())
        {
            // Checked after the open: the map is then that of the process the descriptor stands for, not of a later one with its pid.
            pageMap.Dispose();
            throw new LinuxException("read pagemap", Errno.ESRCH);
        }

        return pageMap;
    }

    // pagemap shows 0 for a marker in hugetlb memory; PAGEMAP_SCAN shows that there is an entry which is no page. A page under migration has
    // one too, so that an access must fail as well: it does at once, and touches nothing, because the page is not to be made (tried on 6.18).
    private static List<HostRange> HugeMarks(Attachment attachment, PageMap pageMap, HostRange range)
    {
        var marks = new List<HostRange>();
        using var memory = ProcessMemoryFile.Open(attachment.Vmm.Pid);
        foreach (var found in PageScan.FindNotPresent(pageMap, range.HostVirtualAddress, range.HostVirtualAddress + (ulong)range.Bytes))
        {
            var page = range.Region.PageBytes;
            for (var at = found.Start; at < found.End; at += (ulong)page)
            {
                if (memory.Peek(at) is not (Errno.None or Errno.ESRCH))
                {
                    Append(marks, range.Slice((long)(at - range.HostVirtualAddress), page));
                }
            }
        }

        return marks;
    }

    private static List<HostRange> Complement(HostRange range, List<HostRange> parts)
    {
        var left = new List<HostRange>();
        var at = 0L;
        foreach (var part in parts)
        {
            var start = (long)(part.Offset - range.Offset);
            if (start > at)
            {
                left.Add(range.Slice(at, start - at));
            }

            at = start + part.Bytes;
        }

        if (at < range.Bytes)
        {
            left.Add(range.Slice(at, range.Bytes - at));
        }

        return left;
    }

    private static List<HostRange> Find(PageMap pageMap, HostRange range, Predicate<PageMapEntry> wanted)
    {
        var found = new List<HostRange>();
        var entries = new PageMapEntry[Math.Min(BatchPages, range.Bytes / FrameMath.FrameBytes)];
        for (long at = 0; at < range.Bytes; at += (long)entries.Length * FrameMath.FrameBytes)
        {
            var count = (int)Math.Min(entries.Length, (range.Bytes - at) / FrameMath.FrameBytes);
            pageMap.Read(range.HostVirtualAddress + (ulong)at, entries.AsSpan(0, count));
            for (var i = 0; i < count; i++)
            {
                if (wanted(entries[i]))
                {
                    Append(found, range.Slice(at + ((long)i * FrameMath.FrameBytes), FrameMath.FrameBytes));
                }
            }
        }

        return found;
    }

    private static void Append(List<HostRange> stretches, HostRange page)
    {
        if (stretches.Count > 0 && stretches[^1].Offset + (ulong)stretches[^1].Bytes == page.Offset)
        {
            stretches[^1] = stretches[^1] with { Bytes = stretches[^1].Bytes + page.Bytes };
        }
        else
        {
            stretches.Add(page);
        }
    }
}
