using Fleet.Contracts.Handoff;
using Fleet.Linux;
using Fleet.Linux.Memory;

namespace Fleet.TinyVmm.Memory;

/// <summary>
/// All of the guest's RAM. Managed code never holds a pointer into it: a load from a poisoned page would end the process,
/// whereas process_vm_readv and process_vm_writev answer EFAULT.
/// </summary>
public sealed class GuestMemory : IDisposable
{
    private readonly GuestRegion[] _regions;

    public GuestMemory(string vm, IReadOnlyList<MemoryRange> layout, MemoryBacking backing = MemoryBacking.Memfd)
    {
        var made = new List<GuestRegion>();
        try
        {
            foreach (var range in layout)
            {
                made.Add(new GuestRegion(vm, made.Count, range, backing));
            }
        }
        catch
        {
            made.ForEach(region => region.Dispose());
            throw;
        }

        _regions = [.. made];
    }

    /// <summary>Sorted by guest physical address, not overlapping.</summary>
    public IReadOnlyList<GuestRegion> Regions => _regions;

    /// <summary>The region that holds all of a range; null when there is none.</summary>
    public GuestRegion? Find(ulong guestPhysicalAddress, ulong bytes = 1)
    {
        foreach (var region in _regions)
        {
            var offset = guestPhysicalAddress - region.Range.GuestPhysicalAddress;
            if (guestPhysicalAddress >= region.Range.GuestPhysicalAddress && offset < region.Range.Bytes)
            {
                return bytes <= region.Range.Bytes - offset ? region : null;
            }
        }

        return null;
    }

    /// <summary>The guest physical address of an address in this process; null when it is no guest memory.</summary>
    public ulong? GuestPhysicalAddressOf(ulong hostVirtualAddress)
    {
        foreach (var region in _regions)
        {
            var offset = hostVirtualAddress - region.HostVirtualAddress;
            if (hostVirtualAddress >= region.HostVirtualAddress && offset < region.Range.Bytes)
            {
                return region.Range.GuestPhysicalAddress + offset;
            }
        }

        return null;
    }

    /// <summary>Writes at set-up, through the kernel.</summary>
    /// <exception cref="LinuxException">The range is not RAM, or trapped (EFAULT).</exception>
    public void Write(ulong guestPhysicalAddress, ReadOnlySpan<byte> bytes)
    {
        var error = TryWrite(guestPhysicalAddress, bytes);
        if (error != Errno.None)
        {
            throw new LinuxException("process_vm_writev", error);
        }
    }

    /// <summary>Writes through the kernel; blocks on a trapped page until that is resolved.</summary>
    /// <returns>None, or why not all was written: EFAULT where the range is poisoned, or no RAM of one region.</returns>
    public Errno TryWrite(ulong guestPhysicalAddress, ReadOnlySpan<byte> bytes) =>
        AddressOf(guestPhysicalAddress, (ulong)bytes.Length) is { } address
            ? ProcessMemory.Write(Environment.ProcessId, address, bytes)
            : Errno.EFAULT;

    /// <summary>Reads through the kernel; blocks on a trapped page until that is resolved.</summary>
    /// <returns>None, or why not all was read (the buffer is then undefined): EFAULT as for a write.</returns>
    public Errno TryRead(ulong guestPhysicalAddress, Span<byte> bytes) =>
        AddressOf(guestPhysicalAddress, (ulong)bytes.Length) is { } address
            ? ProcessMemory.Read(Environment.ProcessId, address, bytes)
            : Errno.EFAULT;

    /// <summary>The error of an access to a page that is poisoned, by a marker or by the hardware.</summary>
    public static bool IsUnreadable(Errno error) => error is Errno.EFAULT or Errno.EIO or Errno.EHWPOISON;

    /// <summary>The page has an entry in the page table that is neither a page nor a poison marker; ask only after an access failed.</summary>
    public bool IsHardwarePoison(ulong guestPhysicalAddress) =>
        EntryOf(guestPhysicalAddress) is { IsSwap: true, IsPresent: false, IsPoisonMarker: false };

    /// <summary>The frames among these, of one region, that have a poison marker in this process.</summary>
    public IEnumerable<long> PoisonMarkers(long start, long count)
    {
        const int Batch = 512;
        if (Find((ulong)start * MemoryLayout.PageBytes) is { Backing: MemoryBacking.Hugetlb })
        {
            foreach (var frame in HugeMarkers(start, count))
            {
                yield return frame;
            }

            yield break;
        }

        using var pages = PageMap.Open(Environment.ProcessId);
        var entries = new PageMapEntry[Batch];
        for (var done = 0L; done < count; done += Batch)
        {
            var length = (int)Math.Min(Batch, count - done);
            var address = AddressOf((ulong)(start + done) * MemoryLayout.PageBytes, (ulong)length * MemoryLayout.PageBytes)
                ?? throw new ArgumentOutOfRangeException(nameof(start));
            pages.Read(address, entries.AsSpan(0, length));
            for (var i = 0; i < length; i++)
            {
                if (entries[i].IsPoisonMarker)
                {
                    yield return start + done + i;
                }
            }
        }
    }

    /// <summary>Gives all of RAM back: every page is zero afterwards, except those that something traps.</summary>
    public void DiscardAll()
    {
        foreach (var region in _regions)
        {
            DiscardUnmarked(new HandoffFrames(FrameOf(region.Range.GuestPhysicalAddress), FrameOf(region.Range.End)));
        }
    }

    /// <summary>Gives frames of one region back, but for those that carry a poison marker: in some kinds of memory it would go with the page.</summary>
    public void DiscardUnmarked(HandoffFrames frames)
    {
        var region = Find((ulong)frames.Start * MemoryLayout.PageBytes) ?? throw new ArgumentOutOfRangeException(nameof(frames));
        var start = frames.Start;
        foreach (var marked in region.Backing == MemoryBacking.Memfd ? [] : PoisonMarkers(frames.Start, frames.End - frames.Start))
        {
            Discard(region, start, marked);
            start = marked + 1;
        }

        Discard(region, start, frames.End);
    }

    /// <summary>The whole pages of RAM that the frames lie in: what is lost with them.</summary>
    public IEnumerable<HandoffFrames> Widen(IEnumerable<HandoffFrames> frames)
    {
        foreach (var range in frames)
        {
            var pages = (long)((Find((ulong)range.Start * MemoryLayout.PageBytes)?.PageBytes ?? MemoryLayout.PageBytes) / MemoryLayout.PageBytes);
            yield return new HandoffFrames(range.Start / pages * pages, (range.End + pages - 1) / pages * pages);
        }
    }

    /// <summary>Size of the page that is lost with this address, as a power of two.</summary>
    public int ShiftAt(ulong guestPhysicalAddress) => Find(guestPhysicalAddress) is { Backing: MemoryBacking.Hugetlb } ? 21 : 12;

    /// <summary>The part of a set of frames that is RAM.</summary>
    public IEnumerable<HandoffFrames> Clip(FrameRanges frames) =>
        from region in _regions
        let start = (long)(region.Range.GuestPhysicalAddress / MemoryLayout.PageBytes)
        let end = (long)(region.Range.End / MemoryLayout.PageBytes)
        from range in frames.Ranges
        where range.Start < end && range.End > start
        select new HandoffFrames(Math.Max(range.Start, start), Math.Min(range.End, end));

    private static void Discard(GuestRegion region, long start, long end)
    {
        if (end > start)
        {
            region.Discard((ulong)start * MemoryLayout.PageBytes, (ulong)(end - start) * MemoryLayout.PageBytes);
        }
    }

    private static long FrameOf(ulong guestPhysicalAddress) => (long)(guestPhysicalAddress / MemoryLayout.PageBytes);

    // pagemap shows nothing of an entry that is no page there.
    private List<long> HugeMarkers(long start, long count)
    {
        using var pages = PageMap.Open(Environment.ProcessId);
        var address = AddressOf((ulong)start * MemoryLayout.PageBytes, (ulong)count * MemoryLayout.PageBytes) ?? throw new ArgumentOutOfRangeException(nameof(start));
        var first = address & ~(MemoryLayout.HugePageBytes - 1);
        var end = (address + ((ulong)count * MemoryLayout.PageBytes) + MemoryLayout.HugePageBytes - 1) & ~(MemoryLayout.HugePageBytes - 1);
        return
        [
            .. PageScan.FindNotPresent(pages, first, end)
                .SelectMany(range => Enumerable.Range(0, (int)((range.End - range.Start) / MemoryLayout.PageBytes))
                    .Select(page => start + ((long)(range.Start - address) / (long)MemoryLayout.PageBytes) + page))
                .Where(frame => frame >= start && frame < start + count),
        ];
    }

    private PageMapEntry EntryOf(ulong guestPhysicalAddress)
    {
        using var pages = PageMap.Open(Environment.ProcessId);
        return AddressOf(guestPhysicalAddress, 1) is { } address ? pages.Read(address) : default;
    }

    private ulong? AddressOf(ulong guestPhysicalAddress, ulong bytes) =>
        Find(guestPhysicalAddress, bytes) is { } region ? region.HostVirtualAddress + (guestPhysicalAddress - region.Range.GuestPhysicalAddress) : null;

    public void Dispose()
    {
        foreach (var region in _regions)
        {
            region.Dispose();
        }
    }
}
