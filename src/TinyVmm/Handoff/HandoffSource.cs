using Fleet.Contracts;
using Fleet.Contracts.Handoff;
using Fleet.Linux.Userfaultfd;
using Fleet.TinyVmm.Events;
using Fleet.TinyVmm.Memory;

namespace Fleet.TinyVmm.Handoff;

/// <summary>What the VMM hands over: its memory, its userfaultfd, and its events.</summary>
public sealed class HandoffSource(string vm, GuestMemory memory, UserfaultfdHandle userfaultfd, EventQueue events)
{
    public EventQueue Events => events;

    public HandoffMessage Message() => new(
        HandoffProtocol.HandoffType,
        HandoffProtocol.Version,
        vm,
        Environment.ProcessId,
        userfaultfd.Number,
        [.. memory.Regions.Select(ToWire)],
        events.LastSequence,
        [VmmCapabilities.InjectsMachineCheck]);

    /// <summary>In the order of the contract: the userfaultfd, then one memfd for each region.</summary>
    public int[] Descriptors() => [userfaultfd.Number, .. memory.Regions.Select(region => region.MemfdNumber)];

    private static HandoffRegion ToWire(GuestRegion region, int index) => new(
        HexAddress.Format(region.Range.GuestPhysicalAddress),
        (long)region.Range.Bytes,
        HexAddress.Format(region.HostVirtualAddress),
        (int)MemoryLayout.PageBytes,
        index,
        region.MemfdNumber,
        0);
}
