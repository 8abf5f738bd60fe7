using System.Globalization;
using Fleet.Contracts;
using Fleet.Contracts.Handoff;
using Fleet.TinyVmm.Guest;

namespace Fleet.TinyVmm.Memory;

/// <summary>One piece of guest RAM as asked for on the command line.</summary>
public readonly record struct MemoryRange(ulong GuestPhysicalAddress, ulong Bytes)
{
    public ulong End => GuestPhysicalAddress + Bytes;
}

/// <summary>Where the guest's RAM lies: <c>64M</c>, or <c>0x0:64M,0x100000000:1G</c>.</summary>
public static class MemoryLayout
{
    public const ulong PageBytes = 4096;

    public const ulong HugePageBytes = 2 << 20;

    /// <summary>Highest end of guest RAM: 46 bits, what the oldest 64-bit processors with KVM can address and more than a test needs.</summary>
    public const ulong MaximumAddress = 1UL << 46;

    /// <summary>The ranges sorted by address; false with a message for the user when the text or the layout is not valid.</summary>
    public static bool TryParse(string text, out IReadOnlyList<MemoryRange> ranges, out string error)
    {
        ranges = [];
        var found = new List<MemoryRange>();
        foreach (var part in text.Split(','))
        {
            var colon = part.IndexOf(':', StringComparison.Ordinal);
            ulong address = 0;
            if (colon >= 0 && !HexAddress.TryParse(part[..colon], out address))
            {
                error = $"'{part}': the address must be a hex string such as 0x100000000";
                return false;
            }

            if (!TryParseSize(part[(colon + 1)..], out var bytes))
            {
                error = $"'{part}': the size must be a number with K, M or G, such as 64M";
                return false;
            }

            found.Add(new MemoryRange(address, bytes));
        }

        found.Sort((left, right) => left.GuestPhysicalAddress.CompareTo(right.GuestPhysicalAddress));
        error = Check(found) ?? string.Empty;
        ranges = found;
        return error.Length == 0;
    }

    /// <summary>Why the layout cannot be made of huge pages; null when it can.</summary>
    public static string? CheckHuge(IReadOnlyList<MemoryRange> ranges) =>
        ranges.Any(range => (range.GuestPhysicalAddress | range.Bytes) % HugePageBytes != 0) ? "with huge pages, addresses and sizes must be multiples of 2M" : null;

    private static string? Check(List<MemoryRange> ranges)
    {
        if (ranges.Count > HandoffProtocol.MaximumRegions)
        {
            return $"at most {HandoffProtocol.MaximumRegions} regions";
        }

        if (ranges[0].GuestPhysicalAddress != 0 || ranges[0].Bytes < GuestLayout.SmallestFirstRegion)
        {
            return "the first region must start at 0x0 and hold at least 1M: the guest's program lives there";
        }

        for (var i = 0; i < ranges.Count; i++)
        {
            var range = ranges[i];
            var name = HexAddress.Format(range.GuestPhysicalAddress);
            if ((range.GuestPhysicalAddress | range.Bytes) % PageBytes != 0 || range.Bytes == 0)
            {
                return $"region {name}: address and size must be multiples of 4K";
            }

            if (range.GuestPhysicalAddress > MaximumAddress || range.Bytes > MaximumAddress - range.GuestPhysicalAddress)
            {
                return $"region {name}: RAM must end below {HexAddress.Format(MaximumAddress)}";
            }

            if (i > 0 && ranges[i - 1].End > range.GuestPhysicalAddress)
            {
                return $"region {name} overlaps the one before it";
            }

            if (range.GuestPhysicalAddress < GuestLayout.DeviceHoleEnd && range.End > GuestLayout.DeviceHole)
            {
                return $"region {name} reaches into the device hole, {HexAddress.Format(GuestLayout.DeviceHole)} to {HexAddress.Format(GuestLayout.DeviceHoleEnd)}";
            }
        }

        return null;
    }

    private static bool TryParseSize(string text, out ulong bytes)
    {
        bytes = 0;
        var shift = text.Length == 0 ? 0 : text[^1] switch { 'K' or 'k' => 10, 'M' or 'm' => 20, 'G' or 'g' => 30, _ => 0 };
        if (shift == 0
            || !ulong.TryParse(text.AsSpan(0, text.Length - 1), NumberStyles.None, CultureInfo.InvariantCulture, out var units)
            || units > ulong.MaxValue >> shift)
        {
            return false;
        }

        bytes = units << shift;
        return true;
    }
}
