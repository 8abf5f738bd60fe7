using Fleet.Api.Agents;
using Fleet.Api.Problems;
using Fleet.Contracts.Hosts;
using Fleet.Contracts.Migrations;
using Fleet.Data.Entities;
using Fleet.Data.Pages;
using Fleet.Data.Placement;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Migrations;

/// <summary>Park, reset and rebuild: what becomes of a VM without a move from one live guest to another.</summary>
internal sealed class VmLifeCommands(MigrationCommands migrations, StatusBoard board)
{
    /// <summary>A migration without a target: the owner's agent seals, then nobody owns the VM.</summary>
    /// <returns>The migration's id; of the one under way, or of the one that parked the VM, where there is nothing to do.</returns>
    public async Task<Outcome<string>> ParkAsync(WriteScope scope, string id, ParkRequest request, string actor, TimeSpan lifetime)
    {
        if (await scope.Db.Vms.FindAsync(id) is not { } vm)
        {
            return ProblemTypes.UnknownVm;
        }

        if (vm.Quarantined)
        {
            // Also where it was parked before the restore: a host may have it running.
            return ProblemTypes.Quarantined;
        }

        var active = await MigrationCommands.FindActiveAsync(scope.Db, id);
        if (active is { TargetHost: not null })
        {
            return ProblemTypes.MigrationActive;
        }

        if (active is null && vm.Host is null)
        {
            var last = scope.Db.Migrations.Where(row => row.Vm == id && row.TargetHost == null && row.State == MigrationStates.Completed);
            return await last.OrderByDescending(row => row.Version).Select(row => row.Id).FirstOrDefaultAsync() is { } parked
                ? parked
                : ProblemTypes.NotPlaced;
        }

        if (active is null && await MigrationCommands.RefuseAsync(scope.Db, vm) is { } problem)
        {
            return problem;
        }

        if (request.SourceFenced && migrations.RefuseSourceFence(vm.Host, vm) is { } refused)
        {
            return refused;
        }

        active ??= MigrationCommands.Add(
            scope, vm, await NewIdAsync(scope), null, null, MigrationStates.Switching, lifetime, actor, request.Reason);
        if (request.SourceFenced && !active.SourceFenced)
        {
            MigrationCommands.FenceSource(scope, active, actor, request.Reason);
        }

        await Gate.TryAsync(scope, active, vm, actor);
        return active.Id;
    }

    /// <summary>Asks for a reset. A parked VM has no RAM anywhere and is reset at once.</summary>
    /// <returns>Whether it is done already.</returns>
    public static async Task<Outcome<ResetAnswer>> ResetAsync(WriteScope scope, string id, ResetRequest request, string actor)
    {
        if (await scope.Db.Vms.FindAsync(id) is not { } vm)
        {
            return ProblemTypes.UnknownVm;
        }

        if (vm.ResetWanted)
        {
            return new ResetAnswer(false);
        }

        if (await MigrationCommands.RefuseAsync(scope.Db, vm) is { } problem)
        {
            return problem;
        }

        if (vm.Host is null)
        {
            await StartAnewAsync(scope, vm, null, ChangeKinds.VmReset, actor, request.Reason);
            return new ResetAnswer(true);
        }

        vm.Version = scope.Change(ChangeKinds.VmResetWanted, ChangeResources.Vm(id), actor, request.Reason);
        vm.ResetWanted = true;
        scope.Touch(vm.Host, id);
        return new ResetAnswer(false);
    }

    /// <summary>The owner's agent attests that no VMM holds the RAM of that memory instance: a wanted reset may be done.</summary>
    public static async Task AttestAsync(WriteScope scope, VmRow vm, string host, string actor)
    {
        if (vm.ResetWanted && vm.Host == host && !vm.Quarantined && await MigrationCommands.FindActiveAsync(scope.Db, vm.Id) is null)
        {
            await StartAnewAsync(scope, vm, vm.Host, ChangeKinds.VmReset, actor, "attested by the owner's agent");
        }
    }

    public async Task<Outcome<Done>> RebuildAsync(WriteScope scope, string id, RebuildRequest request, string actor)
    {
        if (await scope.Db.Vms.FindAsync(id) is not { } vm)
        {
            return ProblemTypes.UnknownVm;
        }

        // A reset that waits for a dead owner is what a rebuild is for.
        if (await MigrationCommands.RefuseAsync(scope.Db, vm) is { } problem && problem != ProblemTypes.ResetWanted)
        {
            return problem;
        }

        if (await scope.Db.Hosts.FindAsync(request.Host) is not { } host)
        {
            return new Problem(ProblemTypes.UnknownHost, Errors: new Dictionary<string, string[]> { ["$.host"] = ["Not a known host."] });
        }

        if (vm.Host == request.Host)
        {
            return new Problem(ProblemTypes.FenceRefused, "A rebuild takes the VM to another host; on this one it is a reset.");
        }

        if (host.Drained)
        {
            return ProblemTypes.HostDrained;
        }

        if (vm.Host is not null && board.StateOf(vm.Host) == HostStates.Online)
        {
            return ProblemTypes.HostOnline;
        }

        await StartAnewAsync(scope, vm, request.Host, ChangeKinds.VmRebuilt, actor, request.Reason);
        return new Done();
    }

    /// <summary>New memory instance, generation and epoch; an empty set.</summary>
    private static async Task StartAnewAsync(WriteScope scope, VmRow vm, string? host, string kind, string actor, string reason)
    {
        var pages = await scope.Db.Pages.Where(row => row.Vm == vm.Id).ToListAsync();
        var payload = new PagePayload(vm.MemoryInstance, vm.Generation, [], [.. pages.Select(PoisonedSet.ToCleared)]);
        var revision = scope.Change(kind, ChangeResources.Vm(vm.Id), actor, reason, payload.ToJson());
        scope.Db.Pages.RemoveRange(pages);
        vm.MemoryInstance = revision;
        vm.Generation = revision;
        vm.PoisonedPages = 0;
        vm.ResetWanted = false;
        await PlacementHistory.MoveAsync(scope, vm, host, revision, fenced: kind == ChangeKinds.VmRebuilt);
    }

    private static async Task<string> NewIdAsync(WriteScope scope)
    {
        var number = scope.Revision + 1;
        string id;
        do
        {
            id = FormattableString.Invariant($"park-{number++}");
        }
        while (await scope.Db.Migrations.FindAsync(id) is not null);
        return id;
    }
}

public readonly record struct ResetAnswer(bool IsDone);
