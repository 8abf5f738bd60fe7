using Fleet.Api.Metrics;
using Fleet.Contracts.Migrations;
using Fleet.Data.Entities;
using Fleet.Data.Placement;
using Fleet.Data.Writing;

namespace Fleet.Api.Migrations;

/// <summary>Every way out of an active migration. Leaving <c>switching</c> always moves the epoch, so that what was sealed stays sealed.</summary>
internal static class MigrationEnd
{
    public static Task FailAsync(WriteScope scope, MigrationRow migration, VmRow vm, string actor, params GateReason[] reasons) =>
        LeaveAsync(scope, migration, vm, MigrationStates.Failed, ChangeKinds.MigrationFailed, actor, reasons[0].Code, reasons);

    /// <summary>Before the grant.</summary>
    public static Task AbortAsync(WriteScope scope, MigrationRow migration, VmRow vm, string actor, string reason) =>
        LeaveAsync(scope, migration, vm, MigrationStates.Aborted, ChangeKinds.MigrationAborted, actor, reason, [new GateReason("aborted", reason)]);

    /// <summary>After the grant and before the lift: the VM goes back to its source, under a new epoch.</summary>
    public static async Task ReturnAsync(WriteScope scope, MigrationRow migration, VmRow vm, string actor, GateReason reason, bool fenced = false)
    {
        var epoch = End(scope, migration, vm, MigrationStates.Aborted, ChangeKinds.MigrationAborted, actor, reason.Detail, [reason]);
        vm.Attach = migration.SourceAttach ?? vm.Attach;
        await PlacementHistory.MoveAsync(scope, vm, migration.SourceHost, epoch, fenced);
    }

    public static async Task ParkAsync(WriteScope scope, MigrationRow migration, VmRow vm, string actor)
    {
        var fenced = migration.SourceFenced && migration.SealEpoch != vm.PlacementEpoch;
        var epoch = End(scope, migration, vm, MigrationStates.Completed, ChangeKinds.MigrationCompleted, actor, migration.FenceReason, []);
        await PlacementHistory.MoveAsync(scope, vm, null, epoch, fenced);
    }

    public static void Complete(WriteScope scope, MigrationRow migration, VmRow vm, string actor) =>
        End(scope, migration, vm, MigrationStates.Completed, ChangeKinds.MigrationCompleted, actor, null, []);

    private static async Task LeaveAsync(
        WriteScope scope, MigrationRow migration, VmRow vm, string state, string kind, string actor, string? reason, IReadOnlyList<GateReason> reasons)
    {
        var wasSwitching = migration.State == MigrationStates.Switching;
        var revision = End(scope, migration, vm, state, kind, actor, reason, reasons);
        if (wasSwitching)
        {
            await PlacementHistory.MoveAsync(scope, vm, vm.Host, revision);
        }
    }

    private static long End(
        WriteScope scope, MigrationRow migration, VmRow vm, string state, string kind, string actor, string? reason, IReadOnlyList<GateReason> reasons)
    {
        var json = MigrationColumns.ToJson(reasons);
        var revision = scope.Change(kind, ChangeResources.Migration(migration.Id), actor, reason, json);
        migration.State = state;
        migration.Generation = vm.Generation;
        migration.Reasons = json;
        migration.Version = revision;
        scope.Touch(migration.SourceHost, vm.Id);
        scope.Touch(migration.TargetHost, vm.Id);
        scope.OnCommitted(() => FleetMetrics.Migrations.Add(1, new KeyValuePair<string, object?>("state", state)));
        return revision;
    }
}
