using System.Text.Json;
using Fleet.Contracts;
using Fleet.Contracts.Hosts;
using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Placement;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Restore;

/// <summary>The end of the quarantine: when every host has stated what it holds, or is fenced, one transaction gives each VM its owner.</summary>
internal static class Quarantine
{
    /// <summary>Hosts that may hold something and have not said.</summary>
    public static IQueryable<HostRow> Awaited(FleetDbContext db, long epoch) =>
        db.Hosts.Where(row => row.Incarnation != null && row.StatedEpoch != epoch && row.FencedEpoch != epoch);

    /// <summary>
    /// Whether a host that claims can have nothing that the restored database forgot: it was never claimed as far as is known, and its agent
    /// shows nothing of a former life. One that was a host between the backup and the restore shows numbers. While anything is quarantined
    /// it is asked all the same: its boot id may account for a VMM that is looked for.
    /// </summary>
    public static async Task<bool> HasNothingToStateAsync(WriteScope scope, HostRow row, Shown shown) =>
        StoreEpochs.Of(scope.Revision) > 0
        && row.Incarnation is null
        && shown is { HighestSeen: 0, Incarnation: null, Spool: null or { Applied: 0 } }
        && !await scope.Db.Vms.AnyAsync(vm => vm.Quarantined);

    public static string? StateOf(HostRow row, long counter) =>
        StoreEpochs.Of(counter) is not (> 0 and var epoch) || row.Incarnation is null ? null
        : row.StatedEpoch == epoch ? StatementStates.Stated
        : row.FencedEpoch == epoch ? StatementStates.Fenced
        : StatementStates.Pending;

    /// <summary>Ends what can be ended.</summary>
    /// <returns>Number of VMs that stay quarantined.</returns>
    public static async Task<int> TryEndAsync(WriteScope scope, string actor)
    {
        await scope.Db.SaveChangesAsync();
        var quarantined = await scope.Db.Vms.Where(row => row.Quarantined).OrderBy(row => row.Id).ToListAsync();
        var epoch = StoreEpochs.Of(scope.Revision);
        if (quarantined.Count == 0 || await Awaited(scope.Db, epoch).AnyAsync())
        {
            return quarantined.Count;
        }

        var boots = (await scope.Db.Hosts.Where(row => row.StatedEpoch == epoch && row.BootId != null).Select(row => row.BootId!).ToListAsync()).ToHashSet();
        foreach (var vm in quarantined)
        {
            var statements = await scope.Db.Statements.Where(row => row.Vm == vm.Id).ToListAsync();
            var ownership = OwnerRules.Decide(vm, statements, boots);
            if (ownership.Conflict is null)
            {
                await EndAsync(scope, vm, ownership, statements, ChangeKinds.QuarantineEnded, actor, null);
            }
            else if (vm.QuarantineReason != ownership.Conflict)
            {
                vm.QuarantineReason = ownership.Conflict;
                vm.Version = scope.Change(ChangeKinds.QuarantineKept, ChangeResources.Vm(vm.Id), actor, ownership.Conflict);
            }
        }

        return quarantined.Count(vm => vm.Quarantined);
    }

    /// <summary>The VM is as the ownership says, under a new epoch and generation.</summary>
    public static async Task EndAsync(
        WriteScope scope, VmRow vm, Ownership ownership, IReadOnlyList<StatementRow> statements, string kind, string actor, string? reason)
    {
        var revision = scope.Change(kind, ChangeResources.Vm(vm.Id), actor, reason, revision => JsonSerializer.Serialize(
            new QuarantineEndPayload(vm.Host, ownership.Owner, ownership.StartsAnew ? revision : ownership.MemoryInstance), RestoreJson.Default.QuarantineEndPayload));
        var memoryInstance = ownership.StartsAnew ? revision : ownership.MemoryInstance;
        if (memoryInstance != vm.MemoryInstance)
        {
            // The set stays: nothing is cleared by a restore.
            vm.MemoryInstance = memoryInstance;
            foreach (var page in await scope.Db.Pages.Where(row => row.Vm == vm.Id).ToListAsync())
            {
                page.MemoryInstance = memoryInstance;
            }
        }

        vm.Quarantined = false;
        vm.QuarantineReason = null;
        vm.Generation = revision;
        vm.Attach = ownership.Attach ?? vm.Attach;
        await PlacementHistory.MoveAsync(scope, vm, ownership.Owner, revision);
        foreach (var statement in statements)
        {
            // Those that saw it as quarantined learn how it ended, and one with a guest that it may not run that it has to stop it.
            scope.Touch(statement.Host, vm.Id);
        }
    }
}
