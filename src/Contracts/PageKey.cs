using System.Text.Json.Serialization;

namespace Fleet.Contracts;

/// <summary>A poisoned page: first guest frame (4 KiB units) and size as a power of two (12, 21 or 30).</summary>
public readonly record struct PageKey(long Frame, int Shift)
{
    [JsonIgnore]
    public ulong GuestPhysicalAddress => FrameMath.AddressOf(Frame);

    [JsonIgnore]
    public long Bytes => 1L << Shift;
}
