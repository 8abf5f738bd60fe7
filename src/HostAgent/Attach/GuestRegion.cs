namespace Fleet.HostAgent.Attach;

/// <summary>A piece of guest RAM as the VMM has mapped it.</summary>
/// <param name="GuestPhysicalAddress">Where the guest sees it.</param>
/// <param name="HostVirtualAddress">Where the VMM process has mapped it.</param>
/// <param name="PageBytes">Smallest piece of it that can be armed: 4096, or 2 MiB of huge pages.</param>
public sealed record GuestRegion(ulong GuestPhysicalAddress, long Bytes, ulong HostVirtualAddress, int PageBytes, GuestBacking Backing)
{
    /// <summary>Of huge pages: they are registered, zapped, marked and verified whole.</summary>
    public bool IsHuge => PageBytes > Contracts.FrameMath.FrameBytes;

    public ulong GuestPhysicalEnd => GuestPhysicalAddress + (ulong)Bytes;
}
