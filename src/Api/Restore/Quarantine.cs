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
    /// <summary>VMs whose quarantine ends with one look through the change tracker.</summary>
    private const int AtOnce = 500;

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

    /// <summary>
    /// Ends what can be ended. What the command changed so far is saved, and nothing of it is tracked any more where a quarantine ended: many
    /// VMs may, and the change tracker is looked through again and again.
    /// </summary>
    /// <returns>Number of VMs that stay quarantined.</returns>
    public static async Task<int> TryEndAsync(WriteScope scope, string actor)
    {
        await scope.Db.SaveChangesAsync();
        var epoch = StoreEpochs.Of(scope.Revision);
        if (await Awaited(scope.Db, epoch).AnyAsync())
        {
            return await scope.Db.Vms.CountAsync(row => row.Quarantined);
        }

        var boots = (await scope.Db.Hosts.Where(row => row.StatedEpoch == epoch && row.BootId != null).Select(row => row.BootId!).ToListAsync()).ToHashSet();
        var (kept, last) = (0, string.Empty);
        while (true)
        {
            var chunk = await scope.Db.Vms.Where(row => row.Quarantined && string.Compare(row.Id, last) > 0).OrderBy(row => row.Id).Take(AtOnce).ToListAsync();
            if (chunk.Count == 0)
            {
                return kept;
            }

            await TryEndAsync(scope, chunk, boots, actor);
            (kept, last) = (kept + chunk.Count(vm => vm.Quarantined), chunk[^1].Id);
            await scope.Db.SaveChangesAsync();
            scope.Db.ChangeTracker.Clear();
        }
    }

    private static async Task TryEndAsync(WriteScope scope, List<VmRow> vms, HashSet<string> boots, string actor)
    {
        string[] ids = [.. vms.Select(vm => vm.Id)];
        var statements = (await scope.Db.Statements.Where(row => EF.Parameter(ids).Contains(row.Vm)).ToListAsync()).ToLookup(row => row.Vm, StringComparer.Ordinal);
        var open = await PlacementHistory.OpenOfAsync(scope, ids);
        foreach (var vm in vms)
        {
            var stated = statements[vm.Id].ToList();
            var ownership = OwnerRules.Decide(vm, stated, boots);
            if (ownership.Conflict is null)
            {
                await EndAsync(scope, vm, ownership, stated, open[vm.Id], ChangeKinds.QuarantineEnded, actor, null);
            }
            else if (vm.QuarantineReason != ownership.Conflict)
            {
                vm.QuarantineReason = ownership.Conflict;
                vm.Version = scope.Change(ChangeKinds.QuarantineKept, ChangeResources.Vm(vm.Id), actor, ownership.Conflict);
            }
        }
    }

    /// <summary>The VM is as the ownership says, under a new epoch and generation.</summary>
    /// <param name="statements">Of this VM.</param>
    /// <param name="open">Of this VM, from <see cref="PlacementHistory.OpenOfAsync"/>.</param>
    public static async Task EndAsync(
        WriteScope scope, VmRow vm, Ownership ownership, IReadOnlyList<StatementRow> statements, IEnumerable<PlacementRow> open, string kind, string actor, string? reason)
    {
        var revision = scope.Change(kind, ChangeResources.Vm(vm.Id), actor, reason, revision => JsonSerializer.Serialize(
            new QuarantineEndPayload(vm.Host, ownership.Owner, ownership.StartsAnew ? revision : ownership.MemoryInstance), RestoreJson.Default.QuarantineEndPayload));
        var memoryInstance = ownership.StartsAnew ? revision : ownership.MemoryInstance;
        if (memoryInstance != vm.MemoryInstance)
        {
            // The set stays: nothing is cleared by a restore.
            vm.MemoryInstance = memoryInstance;
            if (vm.PoisonedPages > 0)
            {
                await scope.Db.Pages.Where(row => row.Vm == vm.Id).ExecuteUpdateAsync(set => set.SetProperty(row => row.MemoryInstance, memoryInstance));
            }
        }

        vm.Quarantined = false;
        vm.QuarantineReason = null;
        vm.Generation = revision;
        vm.Attach = ownership.Attach ?? vm.Attach;
        PlacementHistory.Move(scope, vm, open, ownership.Owner, revision);
        foreach (var statement in statements)
        {
            // Those that saw it as quarantined learn how it ended, and one with a guest that it may not run that it has to stop it.
            scope.Touch(statement.Host, vm.Id);
        }
    }
}
