using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Data.Placement;

/// <summary>The one way in which a VM's owner or epoch changes, so that the history tells of every change.</summary>
public static class PlacementHistory
{
    /// <summary>Gives the VM to a host, or leaves it where it is, under a new epoch.</summary>
    /// <param name="host">The owner from now on; null when parked.</param>
    /// <param name="epoch">Revision of the change that does it.</param>
    /// <param name="fenced">It is taken from its owner by an override.</param>
    public static async Task MoveAsync(WriteScope scope, VmRow vm, string? host, long epoch, bool fenced = false)
    {
        await CloseAsync(scope, vm.Id, epoch, fenced);
        await UnfenceAsync(scope, vm.Id, host);
        scope.Touch(vm.Host, vm.Id);
        scope.Touch(host, vm.Id);
        vm.Host = host;
        vm.PlacementEpoch = epoch;
        vm.Version = epoch;
        Open(scope, vm, epoch);
    }

    public static void Open(WriteScope scope, VmRow vm, long epoch)
    {
        if (vm.Host is null)
        {
            return;
        }

        scope.Db.Placements.Add(new PlacementRow
        {
            Vm = vm.Id,
            Host = vm.Host,
            PlacementEpoch = epoch,
            MemoryInstance = vm.MemoryInstance,
            FromRevision = epoch,
        });
    }

    /// <summary>What was added in the same command is not in the database yet, so both are looked through.</summary>
    public static async Task CloseAsync(WriteScope scope, string vm, long revision, bool fenced = false)
    {
        await scope.Db.Placements.Where(row => row.Vm == vm && row.ToRevision == null).LoadAsync();
        foreach (var placement in scope.Db.Placements.Local.Where(row => row.Vm == vm && row.ToRevision is null))
        {
            placement.ToRevision = revision;
            placement.Fenced = fenced;
        }
    }

    private static async Task UnfenceAsync(WriteScope scope, string vm, string? owner)
    {
        foreach (var placement in await scope.Db.Placements.Where(row => row.Vm == vm && row.Host == owner && row.Fenced).ToListAsync())
        {
            placement.Fenced = false;
        }
    }
}
