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
    public static async Task MoveAsync(WriteScope scope, VmRow vm, string? host, long epoch, bool fenced = false) =>
        Move(scope, vm, (await OpenOfAsync(scope, [vm.Id]))[vm.Id], host, epoch, fenced);

    /// <param name="open">Of this VM, from <see cref="OpenOfAsync"/>.</param>
    public static void Move(WriteScope scope, VmRow vm, IEnumerable<PlacementRow> open, string? host, long epoch, bool fenced = false)
    {
        foreach (var placement in open)
        {
            if (placement.ToRevision is null)
            {
                placement.ToRevision = epoch;
                placement.Fenced = fenced;
            }
            else if (placement.Host == host)
            {
                placement.Fenced = false;
            }
        }

        scope.Touch(vm.Host, vm.Id);
        scope.Touch(host, vm.Id);
        vm.Host = host;
        vm.PlacementEpoch = epoch;
        vm.Version = epoch;
        Open(scope, vm, epoch);
    }

    /// <summary>
    /// What of the history a move may have to change, for as many VMs as move in one command: each call looks through all that the command
    /// tracks. What was added in the same command is not in the database yet, so both are looked through.
    /// </summary>
    public static async Task<ILookup<string, PlacementRow>> OpenOfAsync(WriteScope scope, string[] vms)
    {
        await scope.Db.Placements.Where(row => EF.Parameter(vms).Contains(row.Vm) && (row.ToRevision == null || row.Fenced)).LoadAsync();
        var wanted = vms.ToHashSet(StringComparer.Ordinal);
        return scope.Db.Placements.Local
            .Where(row => wanted.Contains(row.Vm) && (row.ToRevision is null || row.Fenced))
            .ToLookup(row => row.Vm, StringComparer.Ordinal);
    }

    /// <summary>
    /// Leaves every VM where it is, under a new epoch: four statements, however many there are. No VM or placement may be tracked. Nobody is
    /// touched: a new store epoch concerns every host.
    /// </summary>
    public static async Task RenewAllAsync(WriteScope scope, long epoch)
    {
        var db = scope.Db;
        await db.Placements.Where(row => row.Fenced && db.Vms.Any(vm => vm.Id == row.Vm && vm.Host == row.Host))
            .ExecuteUpdateAsync(set => set.SetProperty(row => row.Fenced, false));
        await db.Placements.Where(row => row.ToRevision == null).ExecuteUpdateAsync(set => set.SetProperty(row => row.ToRevision, epoch));
        await db.Vms.ExecuteUpdateAsync(set => set.SetProperty(row => row.PlacementEpoch, epoch).SetProperty(row => row.Version, epoch));

        // Understood alike by SQLite and PostgreSQL.
        await db.Database.ExecuteSqlAsync($"""
            INSERT INTO "placements" ("Vm", "Host", "PlacementEpoch", "MemoryInstance", "FromRevision", "Fenced")
            SELECT "Id", "Host", {epoch}, "MemoryInstance", {epoch}, {false} FROM "vms" WHERE "Host" IS NOT NULL
            """);
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

    public static async Task CloseAsync(WriteScope scope, string vm, long revision)
    {
        foreach (var placement in (await OpenOfAsync(scope, [vm]))[vm].Where(placement => placement.ToRevision is null))
        {
            placement.ToRevision = revision;
            placement.Fenced = false;
        }
    }
}
