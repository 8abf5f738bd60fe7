using System.Text.Json;
using Fleet.Api.Agents;
using Fleet.Api.Problems;
using Fleet.Contracts;
using Fleet.Contracts.Hosts;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Migrations;

/// <summary>Commands of the writer on a migration, as its caller asks for them.</summary>
internal sealed class MigrationCommands(StatusBoard board, Contests contests)
{
    /// <returns>Whether the migration was created.</returns>
    public async Task<Outcome<MigrationCreated>> PutAsync(WriteScope scope, string id, MigrationRequest request, string actor, TimeSpan lifetime)
    {
        var attach = JsonSerializer.Serialize(request.Attach, FleetJson.Default.VmAttach);
        if (await scope.Db.Migrations.FindAsync(id) is { } existing)
        {
            // Ended or not: asking again never starts it again.
            return existing.Vm == request.Vm && existing.TargetHost == request.TargetHost && existing.Attach == attach
                ? new MigrationCreated(false)
                : ProblemTypes.MigrationExists;
        }

        if (await scope.Db.Vms.FindAsync(request.Vm) is not { } vm)
        {
            return ProblemTypes.UnknownVm;
        }

        if (await RefuseAsync(scope.Db, vm) is { } problem)
        {
            return problem;
        }

        if (await scope.Db.Hosts.FindAsync(request.TargetHost) is not { } target)
        {
            return new Problem(ProblemTypes.UnknownHost, Errors: new Dictionary<string, string[]> { ["$.targetHost"] = ["Not a known host."] });
        }

        var reasons = EarlyChecks.Of(target, request.Attach, contests.ReasonOf(target.Id));
        if (vm.Host == request.TargetHost)
        {
            reasons.Add(new GateReason("target-is-source"));
        }

        if (reasons.Count > 0)
        {
            return Denied(reasons);
        }

        Add(scope, vm, id, request.TargetHost, attach, MigrationStates.Preparing, lifetime, actor, null);
        return new MigrationCreated(true);
    }

    public static MigrationRow Add(
        WriteScope scope, VmRow vm, string id, string? target, string? attach, string state, TimeSpan lifetime, string actor, string? reason)
    {
        var revision = scope.Change(ChangeKinds.MigrationCreated, ChangeResources.Migration(id), actor, reason);
        var migration = new MigrationRow
        {
            Id = id,
            Vm = vm.Id,
            SourceHost = vm.Host,
            TargetHost = target,
            Attach = attach,
            State = state,
            Generation = vm.Generation,
            ExpiresAt = scope.Now + (long)lifetime.TotalMilliseconds,
            Reasons = MigrationColumns.ToJson([]),
            CreatedAt = scope.Now,
            Version = revision,
        };
        scope.Db.Migrations.Add(migration);
        scope.Touch(vm.Host, vm.Id);
        return migration;
    }

    /// <summary>Enters <c>switching</c>, or joins it; grants at once where everything is there.</summary>
    public async Task<Outcome<Done>> SwitchoverAsync(WriteScope scope, string id, SwitchoverRequest request, string actor, TimeSpan lifetime)
    {
        if (await FindAsync(scope, id) is not var (migration, vm))
        {
            return ProblemTypes.UnknownMigration;
        }

        switch (migration.State)
        {
            case MigrationStates.Granted or MigrationStates.Completed when migration.TargetHost is not null:
                return new Done();
            case not (MigrationStates.Preparing or MigrationStates.Switching):
                return Ended(migration);
        }

        if (vm.Quarantined)
        {
            return ProblemTypes.Quarantined;
        }

        if (request.SourceFenced && RefuseSourceFence(migration.SourceHost, vm) is { } refused)
        {
            return refused;
        }

        if (migration.State == MigrationStates.Preparing)
        {
            var target = (await scope.Db.Hosts.FindAsync(migration.TargetHost))!;
            var reasons = EarlyChecks.Of(target, MigrationColumns.AttachOf(migration.Attach)!, contests.ReasonOf(target.Id));
            reasons.AddRange(IsStaged(migration, vm) ? [] : MigrationColumns.ReasonsOf(migration));
            if (reasons.Count > 0)
            {
                return Denied(reasons);
            }

            migration.Version = scope.Change(ChangeKinds.MigrationSwitching, ChangeResources.Migration(id), actor);
            migration.State = MigrationStates.Switching;
            migration.ExpiresAt = migration.ExpiresAt <= scope.Now ? migration.ExpiresAt : scope.Now + (long)lifetime.TotalMilliseconds;
            scope.Touch(vm.Host, vm.Id);
        }

        if (request.SourceFenced && !migration.SourceFenced)
        {
            FenceSource(scope, migration, actor, request.Reason);
        }

        await Gate.TryAsync(scope, migration, vm, actor);
        return new Done();
    }

    public static async Task<Outcome<Done>> CompleteAsync(WriteScope scope, string id, string actor)
    {
        if (await FindAsync(scope, id) is not var (migration, vm))
        {
            return ProblemTypes.UnknownMigration;
        }

        switch (migration.State)
        {
            case MigrationStates.Completed:
                return new Done();
            case MigrationStates.Aborted or MigrationStates.Failed:
                return Ended(migration);
            case not MigrationStates.Granted:
            case MigrationStates.Granted when !migration.Lifted:
                return ProblemTypes.NotLifted;
        }

        MigrationEnd.Complete(scope, migration, vm, actor);
        return new Done();
    }

    public async Task<Outcome<Done>> AbortAsync(WriteScope scope, string id, AbortRequest request, string actor)
    {
        if (await FindAsync(scope, id) is not var (migration, vm))
        {
            return ProblemTypes.UnknownMigration;
        }

        if (migration.State is MigrationStates.Aborted or MigrationStates.Failed)
        {
            return new Done();
        }

        if (migration.State == MigrationStates.Completed)
        {
            return Ended(migration);
        }

        if (vm.Quarantined)
        {
            return ProblemTypes.Quarantined;
        }

        if (migration.State != MigrationStates.Granted)
        {
            await MigrationEnd.AbortAsync(scope, migration, vm, actor, request.Reason);
            return new Done();
        }

        if (migration.Lifted)
        {
            return ProblemTypes.AlreadyLifted;
        }

        if (request.TargetFenced)
        {
            if (board.StateOf(migration.TargetHost!) == HostStates.Online)
            {
                return ProblemTypes.HostOnline;
            }

            await MigrationEnd.ReturnAsync(scope, migration, vm, actor, new GateReason("target-fenced", request.Reason), fenced: true);
        }
        else if (!migration.ReturnWanted)
        {
            migration.Version = scope.Change(ChangeKinds.MigrationReturnWanted, ChangeResources.Migration(id), actor, request.Reason);
            migration.ReturnWanted = true;
            scope.Touch(vm.Host, vm.Id);
        }

        return new Done();
    }

    /// <summary>Fails what is past its time; granted ones have none.</summary>
    public static async Task<Outcome<Done>> ExpireAsync(WriteScope scope, string id)
    {
        if (await FindAsync(scope, id) is var (migration, vm)
            && migration.State is MigrationStates.Preparing or MigrationStates.Switching
            && migration.ExpiresAt <= scope.Now)
        {
            await MigrationEnd.FailAsync(scope, migration, vm, "system", new GateReason(Gate.Expired));
        }

        return new Done();
    }

    /// <summary>Why no migration, reset or rebuild of the VM may begin; null when it may.</summary>
    public static async Task<ProblemType?> RefuseAsync(FleetDbContext db, VmRow vm) =>
        vm.Quarantined ? ProblemTypes.Quarantined
        : vm.ResetWanted ? ProblemTypes.ResetWanted
        : await FindActiveAsync(db, vm.Id) is not null ? ProblemTypes.MigrationActive
        : null;

    public static Task<MigrationRow?> FindActiveAsync(FleetDbContext db, string vm) =>
        db.Migrations.Where(MigrationRow.Active).SingleOrDefaultAsync(row => row.Vm == vm);

    /// <summary>The assertion "dead, and not run since the stream ended": only where nothing contradicts it.</summary>
    public Problem? RefuseSourceFence(string? source, VmRow vm)
    {
        if (source is null)
        {
            return new Problem(ProblemTypes.FenceRefused, "There is no source to be fenced.");
        }

        // Stock QEMU sends a page that it cannot read as zeros, and says nothing.
        if (MigrationColumns.AttachOf(vm.Attach)!.Kind == AttachKinds.Qemu)
        {
            return new Problem(ProblemTypes.FenceRefused, "This attachment's stream neither fails on unreadable pages nor declares them to the target.");
        }

        return board.StateOf(source) == HostStates.Online ? new Problem(ProblemTypes.HostOnline) : null;
    }

    public static void FenceSource(WriteScope scope, MigrationRow migration, string actor, string? reason)
    {
        migration.Version = scope.Change(ChangeKinds.MigrationFenced, ChangeResources.Migration(migration.Id), actor, reason);
        migration.SourceFenced = true;
        migration.FenceReason = reason;
    }

    private static async Task<(MigrationRow Migration, VmRow Vm)?> FindAsync(WriteScope scope, string id) =>
        await scope.Db.Migrations.FindAsync(id) is not { } migration ? null
        : await scope.Db.Vms.FindAsync(migration.Vm) is { } vm ? (migration, vm)
        : (migration, Gone(migration));

    /// <summary>Stands in for a VM that was deleted: its migrations have ended, and ended ones change nothing.</summary>
    private static VmRow Gone(MigrationRow migration) => new() { Id = migration.Vm, Memory = "[]", Attach = migration.Attach ?? "null" };

    private bool IsStaged(MigrationRow migration, VmRow vm) => MigrationReader.IsStaged(board.StatusOf(migration.TargetHost!, vm.Id), vm);

    private static Problem Denied(IReadOnlyList<GateReason> reasons) =>
        new(ProblemTypes.GateDenied, Members: new Dictionary<string, object?> { ["reasons"] = reasons });

    private static Problem Ended(MigrationRow migration) => new(
        ProblemTypes.MigrationEnded,
        $"It is {migration.State}.",
        Members: new Dictionary<string, object?> { ["reasons"] = MigrationColumns.ReasonsOf(migration) });
}

public readonly record struct MigrationCreated(bool Created);
