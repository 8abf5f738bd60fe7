using System.Text.Json;
using Fleet.Contracts;
using Fleet.Api.Metrics;
using Fleet.Contracts.Migrations;
using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Pages;
using Fleet.Data.Placement;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Migrations;

/// <summary>
/// The grant (GATE.md): one command of the writer asserts everything from rows, moves ownership and writes the permit. It is
/// tried in the transaction of whatever may have made it true: a seal, an acknowledgement, an override.
/// </summary>
internal static class Gate
{
    public const string Expired = "expired";

    /// <summary>What keeps the gate shut; empty when the grant may be written.</summary>
    /// <param name="db">A context that sees the set as of the VM's row: within the command, everything saved.</param>
    public static async Task<List<GateReason>> ReasonsAsync(FleetDbContext db, MigrationRow migration, VmRow vm, CancellationToken cancellationToken)
    {
        var reasons = new List<GateReason>();
        Deny(migration.State != MigrationStates.Switching, "not-switching", migration.State);
        Deny(vm.Quarantined, "vm-quarantined");
        Deny(vm.Host != migration.SourceHost, "source-not-owner", vm.Host);
        var isSealed = migration.SealEpoch == vm.PlacementEpoch;
        Deny(migration.SourceHost is not null && !isSealed && !migration.SourceFenced, "seal-missing");
        if (migration.TargetHost is null)
        {
            return reasons;
        }

        if (StoredAck.Of(migration) is not { } ack)
        {
            Deny(true, "ack-missing");
            return reasons;
        }

        Deny(isSealed && !migration.SourceFenced && migration.SealTargetInstance != ack.VmmInstance, "ack-vmm-instance", ack.VmmInstance);
        var incarnation = await db.Hosts.Where(row => row.Id == migration.TargetHost).Select(row => row.Incarnation).SingleOrDefaultAsync(cancellationToken);
        Deny(ack.Incarnation != incarnation, "ack-incarnation");
        Deny(ack.MemoryInstance != vm.MemoryInstance, "ack-memory-instance");
        Deny(ack.Generation != vm.Generation, "ack-generation", FormattableString.Invariant($"{ack.Generation}, not {vm.Generation}"));
        if (reasons.Count == 0)
        {
            var pages = await PagesAsync(db, vm.Id, cancellationToken);
            Deny(ack.Digest != PoisonDigest.Compute(vm.Id, vm.MemoryInstance, pages), "ack-digest");
        }

        return reasons;

        void Deny(bool denied, string code, string? detail = null)
        {
            if (denied)
            {
                reasons.Add(new GateReason(code, detail));
            }
        }
    }

    /// <summary>Grants, or ends a park, if everything holds; fails the migration if its time is up.</summary>
    public static async Task TryAsync(WriteScope scope, MigrationRow migration, VmRow vm, string actor)
    {
        if (migration.State != MigrationStates.Switching)
        {
            return;
        }

        if (migration.ExpiresAt <= scope.Now)
        {
            await MigrationEnd.FailAsync(scope, migration, vm, actor, new GateReason(Expired));
            return;
        }

        // What this command has done so far must be seen by the queries that decide.
        await scope.Db.SaveChangesAsync();
        if ((await ReasonsAsync(scope.Db, migration, vm, CancellationToken.None)).Count > 0)
        {
            return;
        }

        if (migration.TargetHost is null)
        {
            await MigrationEnd.ParkAsync(scope, migration, vm, actor);
        }
        else
        {
            await GrantAsync(scope, migration, vm, StoredAck.Of(migration)!, actor);
        }
    }

    private static async Task GrantAsync(WriteScope scope, MigrationRow migration, VmRow vm, StoredAck ack, string actor)
    {
        // Pages that the target cannot serve are poisoned from now on, whoever lost them.
        await PoisonedSet.AddMissingAsync(scope, vm, ack.Unservable, migration.TargetHost, actor, $"not served by the target of {migration.Id}");
        var epoch = scope.Change(
            ChangeKinds.MigrationGranted,
            ChangeResources.Migration(migration.Id),
            actor,
            migration.FenceReason,
            revision => JsonSerializer.Serialize(new Permit(migration.Id, revision, ack.Generation, ack.VmmInstance), GateJson.Default.Permit));
        var fenced = migration.SourceFenced && migration.SealEpoch != vm.PlacementEpoch;
        migration.State = MigrationStates.Granted;
        migration.PermitEpoch = epoch;
        migration.PermitGeneration = ack.Generation;
        migration.PermitVmmInstance = ack.VmmInstance;
        migration.Generation = vm.Generation;
        migration.SourceAttach = vm.Attach;
        migration.Reasons = MigrationColumns.ToJson([]);
        migration.Version = epoch;
        vm.Attach = migration.Attach!;
        await TimeAsync(scope, migration.Id);
        await PlacementHistory.MoveAsync(scope, vm, migration.TargetHost, epoch, fenced);
    }

    private static async Task TimeAsync(WriteScope scope, string migration)
    {
        var resource = ChangeResources.Migration(migration);
        var since = await scope.Db.Changes.Where(row => row.Resource == resource && row.Kind == ChangeKinds.MigrationSwitching).Select(row => (long?)row.At).FirstOrDefaultAsync();
        scope.OnCommitted(() => FleetMetrics.GateLatency.Record((scope.Now - (since ?? scope.Now)) / 1000.0));
    }

    private static Task<List<PageKey>> PagesAsync(FleetDbContext db, string vm, CancellationToken cancellationToken) =>
        db.Pages.Where(row => row.Vm == vm).OrderBy(row => row.Frame).Select(row => new PageKey(row.Frame, row.Shift)).ToListAsync(cancellationToken);
}
