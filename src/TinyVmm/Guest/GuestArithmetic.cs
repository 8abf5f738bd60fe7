namespace Fleet.TinyVmm.Guest;

/// <summary>What the guest's instructions compute, computed by the host: for comparison only, never as a result.</summary>
public static class GuestArithmetic
{
    public const uint PatternMultiplier = 0x9e37_79b1;
    public const uint ChecksumStart = 0x811c_9dc5;
    public const uint ChecksumMultiplier = 0x0100_0193;

    /// <summary>Folds the seed and the upper half of the address; constant over a fill, which never crosses a 4 GiB boundary.</summary>
    public static uint PatternKey(ulong guestPhysicalAddress, uint seed) => seed ^ ((uint)(guestPhysicalAddress >> 32) * ChecksumMultiplier);

    /// <summary>The dword that a fill writes at an address.</summary>
    public static uint Pattern(ulong guestPhysicalAddress, uint seed) =>
        ((uint)guestPhysicalAddress ^ PatternKey(guestPhysicalAddress, seed)) * PatternMultiplier;

    /// <summary>One step of the checksum: FNV-1a over dwords.</summary>
    public static uint Add(uint checksum, uint dword) => (checksum ^ dword) * ChecksumMultiplier;

    /// <summary>The checksum of a range that holds the pattern.</summary>
    public static uint PatternChecksum(ulong guestPhysicalAddress, ulong bytes, uint seed)
    {
        var checksum = ChecksumStart;
        for (ulong offset = 0; offset < bytes; offset += sizeof(uint))
        {
            checksum = Add(checksum, Pattern(guestPhysicalAddress + offset, seed));
        }

        return checksum;
    }

    /// <summary>The checksum of a range of zeros.</summary>
    public static uint ZeroChecksum(ulong bytes)
    {
        var checksum = ChecksumStart;
        for (ulong offset = 0; offset < bytes; offset += sizeof(uint))
        {
            checksum = Add(checksum, 0);
        }

        return checksum;
    }
}
