using Fleet.Contracts;
using Fleet.Contracts.Handoff;
using Fleet.Linux.Userfaultfd;
using Fleet.TinyVmm.Events;
using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Running;

namespace Fleet.TinyVmm.Handoff;

/// <summary>What the VMM hands over: its memory, its userfaultfd, its events, and with a barrier the guest's state.</summary>
public sealed class HandoffSource(string vm, GuestMemory memory, UserfaultfdHandle userfaultfd, EventQueue events, RunControl run)
{
    public EventQueue Events => events;

    public RunControl Run => run;

    public HandoffMessage Message()
    {
        var state = run.HasBarrier ? run.Present : null;
        return new HandoffMessage(
            HandoffProtocol.HandoffType,
            HandoffProtocol.Version,
            vm,
            Environment.ProcessId,
            userfaultfd.Number,
            [.. memory.Regions.Select(ToWire)],
            events.LastSequence,
            run.HasBarrier ? [VmmCapabilities.InjectsMachineCheck, VmmCapabilities.Zaps, VmmCapabilities.Barrier] : [VmmCapabilities.InjectsMachineCheck, VmmCapabilities.Zaps],
            state?.State,
            state?.StreamTarget,
            state?.Undelivered);
    }

    /// <summary>In the order of the contract: the userfaultfd, then one memfd for each region that has one.</summary>
    public int[] Descriptors() => [userfaultfd.Number, .. memory.Regions.Select(region => region.MemfdNumber).OfType<int>()];

    /// <summary>Carries the agent's order out, on a thread that may wait.</summary>
    public Task<VmmZapped> ZapAsync(AgentLine line) => Task.Run(() => ZapOrder.Carry(line, memory, userfaultfd));

    private static HandoffRegion ToWire(GuestRegion region, int index) => new(
        HexAddress.Format(region.Range.GuestPhysicalAddress),
        (long)region.Range.Bytes,
        HexAddress.Format(region.HostVirtualAddress),
        (int)region.PageBytes,
        region.MemfdNumber is null ? null : index,
        region.MemfdNumber,
        0);
}
