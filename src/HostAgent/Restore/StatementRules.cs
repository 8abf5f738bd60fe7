using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Gate;

namespace Fleet.HostAgent.Restore;

/// <summary>What a host keeps and what it says when a new store epoch begins. Pure.</summary>
public static class StatementRules
{
    /// <summary>The guest may run here now.</summary>
    public static bool IsLive(GateRecord record, bool vmmOfRecordLives) => record.IsOpen && vmmOfRecordLives;

    /// <summary>
    /// The record with the promise in it: without a live right nothing of an older store epoch opens the barrier again, and what was about
    /// to be renounced is nobody's concern any more.
    /// </summary>
    public static GateRecord Close(GateRecord record, bool vmmOfRecordLives, long storeEpoch) => IsLive(record, vmmOfRecordLives)
        ? record with { Renounced = null }
        : record with { Closed = Math.Max(record.Closed, StoreEpochs.LastBefore(storeEpoch)), Renounced = null, Lifted = null };

    /// <param name="desired">Null where the VM does not concern this host any more.</param>
    /// <param name="attachedMemoryInstance">Of the attached VMM; 0 without one.</param>
    /// <param name="unguarded">The attached VMM takes no part in the barrier, and lives.</param>
    /// <param name="memory">Null when no layout is known.</param>
    public static VmStatement State(
        GateRecord record, bool vmmOfRecordLives, DesiredVm? desired, long attachedMemoryInstance, bool unguarded, IReadOnlyList<MemoryRegion>? memory, IReadOnlyList<PageKey> pages)
    {
        // Closed by the seal, whatever was promised since.
        var seal = record.Right > 0 && !record.IsOpen && record.Sealed is { } last && last.Epoch == record.Right ? last : null;
        return new VmStatement(
            record.Vm,
            Math.Max(Math.Max(record.MemoryInstance, attachedMemoryInstance), desired?.MemoryInstance ?? 0),
            record.Right > 0 ? record.Right : null,
            record.Closed > 0 ? record.Closed : null,
            record.Right > 0 && record.Vmm is { } vmm ? VmmInstanceText.Of(vmm.BootId, vmm.Pid, vmm.StartTime) : null,
            IsLive(record, vmmOfRecordLives),
            pages,
            record.Right > 0 ? record.MemoryInstance : null,
            seal is not null,
            seal?.TargetVmmInstance,
            unguarded,
            memory,
            desired?.Attach);
    }

    /// <summary>The highest number that the agent durably knows.</summary>
    public static long HighestSeen(IEnumerable<DesiredVm> desired, IEnumerable<GateRecord> records, long? incarnation, long promised) =>
        desired.SelectMany(vm => new[] { vm.Generation, vm.PlacementEpoch, vm.MemoryInstance })
            .Concat(records.SelectMany(record => new[] { record.Right, record.Closed, record.MemoryInstance }))
            .Append(incarnation ?? 0)
            .Append(StoreEpochs.FloorOf(promised))
            .Max();
}
