using Fleet.Linux.Memory;

namespace Fleet.HostAgent.Attach;

/// <summary>A piece of guest RAM as the VMM has mapped it.</summary>
/// <param name="GuestPhysicalAddress">Where the guest sees it.</param>
/// <param name="HostVirtualAddress">Where the VMM process has mapped it.</param>
/// <param name="Backing">The memfd behind it; a copy of the VMM's descriptor.</param>
/// <param name="BackingNumber">The descriptor's number in the VMM.</param>
/// <param name="BackingOffset">Where the region starts in the backing, in bytes.</param>
public sealed record GuestRegion(
    ulong GuestPhysicalAddress,
    long Bytes,
    ulong HostVirtualAddress,
    int PageBytes,
    MemoryFile Backing,
    int BackingNumber,
    long BackingOffset)
{
    public ulong GuestPhysicalEnd => GuestPhysicalAddress + (ulong)Bytes;
}
