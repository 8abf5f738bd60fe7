using Fleet.Contracts;
using Fleet.HostAgent.Enforce;

namespace Fleet.HostAgent.Attach;

/// <summary>Guest RAM of an attached VMM; translates guest frames to host addresses.</summary>
public sealed class GuestLayout(IReadOnlyList<GuestRegion> regions)
{
    public IReadOnlyList<GuestRegion> Regions { get; } = regions;

    /// <summary>Splits a range of frames at region borders; frames outside all regions are left out.</summary>
    public IEnumerable<HostRange> Locate(FrameRange range)
    {
        var start = FrameMath.AddressOf(range.Start);
        var end = FrameMath.AddressOf(range.End);
        foreach (var region in Regions)
        {
            var from = Math.Max(start, region.GuestPhysicalAddress);
            var to = Math.Min(end, region.GuestPhysicalEnd);
            if (from < to)
            {
                yield return new HostRange(region, from - region.GuestPhysicalAddress, (long)(to - from));
            }
        }
    }

    /// <summary>
    /// What must be armed so that the frames are: in huge pages the whole page. Frames outside all regions stay as they are.
    /// </summary>
    public FrameSet Widen(FrameSet frames) => Regions.Any(region => region.IsHuge)
        ? frames.Union(FrameSet.Of(frames.Ranges.SelectMany(Locate).Select(part => part.Widen().Frames)))
        : frames;

    /// <summary>Page size of the memory at a frame as a power of two; null outside guest RAM.</summary>
    public int? ShiftAt(long frame) =>
        Regions.FirstOrDefault(region => FrameMath.AddressOf(frame) >= region.GuestPhysicalAddress && FrameMath.AddressOf(frame) < region.GuestPhysicalEnd) is { } at
            ? System.Numerics.BitOperations.Log2((uint)at.PageBytes)
            : null;

    /// <summary>The whole page of its region at a host virtual address of the VMM; null outside guest RAM.</summary>
    public HostRange? PageAt(ulong hostVirtualAddress)
    {
        foreach (var region in Regions)
        {
            var offset = hostVirtualAddress - region.HostVirtualAddress;
            if (hostVirtualAddress >= region.HostVirtualAddress && offset < (ulong)region.Bytes)
            {
                return new HostRange(region, offset & ~((ulong)region.PageBytes - 1), region.PageBytes);
            }
        }

        return null;
    }

    /// <summary>The guest frame at a host virtual address of the VMM; null outside guest RAM.</summary>
    public long? FrameAt(ulong hostVirtualAddress)
    {
        foreach (var region in Regions)
        {
            var offset = hostVirtualAddress - region.HostVirtualAddress;
            if (hostVirtualAddress >= region.HostVirtualAddress && offset < (ulong)region.Bytes)
            {
                return FrameMath.FrameOf(region.GuestPhysicalAddress + offset);
            }
        }

        return null;
    }
}

/// <summary>A contiguous part of one region.</summary>
/// <param name="Offset">From the start of the region, in bytes.</param>
public readonly record struct HostRange(GuestRegion Region, ulong Offset, long Bytes)
{
    public ulong HostVirtualAddress => Region.HostVirtualAddress + Offset;

    /// <summary>Where it starts in the region's file; meaningless without one.</summary>
    public long BackingOffset => Region.Backing.Offset + (long)Offset;

    public long FirstFrame => FrameMath.FrameOf(Region.GuestPhysicalAddress + Offset);

    public FrameRange Frames => new(FirstFrame, FirstFrame + (Bytes >> FrameMath.FrameShift));

    /// <summary>The whole pages of the region in which it lies.</summary>
    public HostRange Widen()
    {
        var mask = (ulong)Region.PageBytes - 1;
        var start = Offset & ~mask;
        return new(Region, start, (long)(((Offset + (ulong)Bytes + mask) & ~mask) - start));
    }

    public HostRange Slice(long offset, long bytes) => new(Region, Offset + (ulong)offset, bytes);
}
