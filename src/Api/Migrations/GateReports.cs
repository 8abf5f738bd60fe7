using Fleet.Contracts.Agents;
using Fleet.Contracts.Migrations;
using Fleet.Api.Vms;
using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Migrations;

/// <summary>What a host's agent says to the gate, applied in the command that reads its spool.</summary>
internal sealed class GateReports(WriteScope scope, string host, string actor)
{
    /// <summary>Applies one spooled report.</summary>
    /// <returns>Why it can never be applied; null when it was.</returns>
    public async Task<string?> ApplyAsync(AgentReport report, VmRow vm)
    {
        if (report.Kind == AgentReport.VmmGone)
        {
            await VmLifeCommands.AttestAsync(scope, vm, host, actor);
            return null;
        }

        // Terminal migrations never revive: whatever belongs to one comes too late.
        var migration = await MigrationCommands.FindActiveAsync(scope.Db, vm.Id);
        if (migration is null || migration.Id != report.Migration || report.PlacementEpoch != vm.PlacementEpoch)
        {
            return "stale-migration";
        }

        return report.Kind switch
        {
            AgentReport.Seal => await SealAsync(migration, vm, report),
            AgentReport.Lifted => Lifted(migration, vm),
            _ => await RenouncedAsync(migration, vm),
        };
    }

    /// <summary>Stores an acknowledgement of the present incarnation, and tries the grant; one that is not asked for is nothing.</summary>
    public async Task AcknowledgeAsync(GateAck ack, long incarnation)
    {
        if (await FindIncomingAsync(ack.Vm, ack.Migration) is not { State: MigrationStates.Switching } migration
            || await scope.Db.Vms.FindAsync(ack.Vm) is not { } vm)
        {
            return;
        }

        var layout = MemoryLayout.Parse(vm.Memory);
        var stored = StoredAck.From(ack, incarnation).ToJson();
        if (!ack.Unservable.All(page => layout.Contains(page.Frame, page.Shift)))
        {
            SetReasons(migration, [new GateReason("layout", "The target acknowledges pages outside the VM's memory.")]);
        }
        else if (migration.Ack != stored)
        {
            migration.Ack = stored;
            migration.Reasons = MigrationColumns.ToJson([]);
            migration.Version = scope.Change(ChangeKinds.MigrationAcknowledged, ChangeResources.Migration(migration.Id), actor, payload: stored);
            scope.Touch(host, vm.Id);
        }

        await Gate.TryAsync(scope, migration, vm, actor);
    }

    /// <summary>Takes the host's present obstacles for all that it is the target of, and for the parks of which it is the source.</summary>
    public async Task ObstructAsync(IReadOnlyList<GateObstacle> obstacles)
    {
        await scope.Db.SaveChangesAsync();
        // A park has no target: what is in the way of its seal is on the source.
        var concerned = await scope.Db.Migrations.Where(MigrationRow.Active)
            .Where(row => row.TargetHost == host || (row.TargetHost == null && row.SourceHost == host)).ToListAsync();
        foreach (var migration in concerned.Where(row => row.State != MigrationStates.Granted))
        {
            SetReasons(migration, [.. obstacles
                .Where(obstacle => obstacle.Migration == migration.Id && obstacle.Vm == migration.Vm)
                .Select(obstacle => new GateReason(obstacle.Code, obstacle.Detail))
                .Distinct()]);
        }
    }

    /// <summary>The target's own memory failed under what it acknowledged: it has to look again.</summary>
    public async Task VoidAckAsync(VmRow vm)
    {
        if (await MigrationCommands.FindActiveAsync(scope.Db, vm.Id) is { State: MigrationStates.Switching, Ack: not null } migration && migration.TargetHost == host)
        {
            migration.Ack = null;
            migration.Version = scope.Change(ChangeKinds.MigrationAckVoided, ChangeResources.Migration(migration.Id), actor);
            scope.Touch(host, vm.Id);
        }
    }

    private async Task<string?> SealAsync(MigrationRow migration, VmRow vm, AgentReport report)
    {
        var isPark = migration.TargetHost is null;
        if (migration.State != MigrationStates.Switching || migration.SourceHost != host || vm.Host != host || isPark != report.TargetVmmInstance is null)
        {
            return "stale-migration";
        }

        if (await scope.Db.Statements.FindAsync(vm.Id, host) is { } statement)
        {
            // What it stated after a restore holds no more: its guest stands still, and the VM concerns it no longer than this migration.
            statement.Live = false;
        }

        migration.SealEpoch = report.PlacementEpoch;
        migration.SealTargetInstance = report.TargetVmmInstance;
        migration.Version = scope.Change(
            ChangeKinds.MigrationSealed, ChangeResources.Migration(migration.Id), actor, payload: new SealPayload(report.TargetVmmInstance).ToJson());
        scope.Touch(host, vm.Id);
        await Gate.TryAsync(scope, migration, vm, actor);
        return null;
    }

    private string? Lifted(MigrationRow migration, VmRow vm)
    {
        if (!IsGrantedHere(migration, vm))
        {
            return "stale-migration";
        }

        if (!migration.Lifted)
        {
            migration.Version = scope.Change(ChangeKinds.MigrationLifted, ChangeResources.Migration(migration.Id), actor);
            migration.Lifted = true;
            scope.Touch(host, vm.Id);
        }

        return null;
    }

    private async Task<string?> RenouncedAsync(MigrationRow migration, VmRow vm)
    {
        if (!IsGrantedHere(migration, vm) || migration.Lifted || vm.Quarantined)
        {
            return "stale-migration";
        }

        await MigrationEnd.ReturnAsync(scope, migration, vm, actor, new GateReason("renounced"));
        return null;
    }

    private bool IsGrantedHere(MigrationRow migration, VmRow vm) =>
        migration.State == MigrationStates.Granted && migration.TargetHost == host && migration.PermitEpoch == vm.PlacementEpoch;

    private async Task<MigrationRow?> FindIncomingAsync(string vm, string id) =>
        await scope.Db.Migrations.FindAsync(id) is { } migration && migration.Vm == vm && migration.TargetHost == host ? migration : null;

    private void SetReasons(MigrationRow migration, IReadOnlyList<GateReason> reasons)
    {
        var json = MigrationColumns.ToJson(reasons);
        if (migration.Reasons == json)
        {
            return;
        }

        migration.Reasons = json;
        migration.Version = scope.Change(ChangeKinds.MigrationObstacles, ChangeResources.Migration(migration.Id), actor, payload: json);
        scope.Touch(host, migration.Vm);
    }
}
