using Fleet.Linux.Interop;

namespace Fleet.Linux.Memory;

/// <summary>
/// The PAGEMAP_SCAN ioctl (Linux 6.7, Documentation/admin-guide/mm/pagemap.rst): the kernel walks a process's page tables itself and names only
/// the ranges asked for. Unlike a read of pagemap it sees entries of hugetlb mappings that are not present.
/// </summary>
public static unsafe class PageScan
{
    private const int MaximumRanges = 256;

    /// <summary>Ranges of pages that have an entry which is not present: swapped out, under migration, a marker, or hardware poison.</summary>
    /// <param name="map">Of the process.</param>
    /// <param name="start">Page-aligned.</param>
    /// <param name="end">Not included.</param>
    /// <exception cref="LinuxException">ENOTTY: the kernel is older than 6.7; ESRCH: the process has ended.</exception>
    public static IReadOnlyList<ScannedRange> FindNotPresent(PageMap map, ulong start, ulong end)
    {
        var found = new List<ScannedRange>();
        var regions = stackalloc PageRegion[MaximumRanges];
        while (start < end)
        {
            var scan = new PageMapScan
            {
                Size = (ulong)sizeof(PageMapScan),
                Start = start,
                End = end,
                Vector = (ulong)regions,
                VectorLength = MaximumRanges,
                CategoryMask = PageMapScan.PAGE_IS_SWAPPED,
                ReturnMask = PageMapScan.PAGE_IS_SWAPPED | PageMapScan.PAGE_IS_HUGE,
            };
            var count = LinuxException.Check(Libc.ioctl(map.Descriptor.Number, (nuint)PageMapScan.PAGEMAP_SCAN, &scan), "PAGEMAP_SCAN");
            for (var i = 0; i < count; i++)
            {
                found.Add(new ScannedRange(regions[i].Start, regions[i].End, (regions[i].Categories & PageMapScan.PAGE_IS_HUGE) != 0));
            }

            if (scan.WalkEnd <= start)
            {
                // The address space is gone: the kernel walks nothing.
                throw new LinuxException("PAGEMAP_SCAN", Errno.ESRCH);
            }

            start = scan.WalkEnd;
        }

        return found;
    }
}

/// <param name="End">Not included.</param>
/// <param name="IsHuge">The entries are those of huge pages.</param>
public readonly record struct ScannedRange(ulong Start, ulong End, bool IsHuge);
