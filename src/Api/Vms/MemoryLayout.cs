using System.Text.Json;
using Fleet.Contracts;
using Fleet.Contracts.Vms;

namespace Fleet.Api.Vms;

/// <summary>A VM's guest RAM, for asking whether a page lies in it.</summary>
public sealed class MemoryLayout
{
    private readonly (ulong Start, ulong End)[] _regions;

    public MemoryLayout(IEnumerable<MemoryRegion> regions) =>
        _regions = [.. regions.Select(region =>
        {
            var start = StartOf(region);
            return (start, start + (ulong)region.Bytes);
        })];

    /// <exception cref="FormatException">Not an address; a validated region has one.</exception>
    public static ulong StartOf(MemoryRegion region) =>
        HexAddress.TryParse(region.GuestPhysicalAddress, out var start) ? start : throw new FormatException("Not a hex address.");

    public static MemoryLayout Parse(string json) =>
        new(JsonSerializer.Deserialize(json, FleetJson.Default.IReadOnlyListMemoryRegion)!);

    /// <summary>Whether the page lies wholly in one region.</summary>
    public bool Contains(long frame, int shift)
    {
        if (frame is < 0 or > FrameMath.MaximumFrame)
        {
            return false;
        }

        var start = FrameMath.AddressOf(frame);
        var end = start + (1UL << shift);
        return Array.Exists(_regions, region => region.Start <= start && end <= region.End);
    }
}
