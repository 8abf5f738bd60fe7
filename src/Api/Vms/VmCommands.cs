using System.Text.Json;
using Fleet.Api.Lists;
using Fleet.Api.Migrations;
using Fleet.Api.Problems;
using Fleet.Api.Restore;
using Fleet.Contracts;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;
using Fleet.Data.Pages;
using Fleet.Data.Placement;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Vms;

/// <param name="Id">The VM.</param>
/// <param name="Memory">Canonical JSON of the regions, ascending.</param>
/// <param name="MayClear">Whether the caller may drop poisoned pages.</param>
public sealed record VmDefinition(string Id, string? Host, string Memory, string Attach, string Actor, bool MayClear, IfMatch IfMatch)
{
    public static VmDefinition From(string id, VmRequest request, string actor, bool mayClear, IfMatch ifMatch) => new(
        id, request.Host, ToJson(request.Memory), JsonSerializer.Serialize(request.Attach, FleetJson.Default.VmAttach), actor, mayClear, ifMatch);

    /// <summary>The canonical form of validated regions.</summary>
    public static string ToJson(IReadOnlyList<MemoryRegion> memory) => JsonSerializer.Serialize(
        [.. memory.OrderBy(MemoryLayout.StartOf).Select(region => region with { GuestPhysicalAddress = HexAddress.Format(MemoryLayout.StartOf(region)) })],
        FleetJson.Default.IReadOnlyListMemoryRegion);
}

/// <summary>Commands of the writer on a VM's definition.</summary>
internal static class VmCommands
{
    /// <returns>Whether the VM was created.</returns>
    public static async Task<Outcome<PutResult>> PutAsync(WriteScope scope, VmDefinition definition)
    {
        var vm = await scope.Db.Vms.FindAsync(definition.Id);
        if (!definition.IfMatch.Matches(vm?.Version))
        {
            return ProblemTypes.Stale;
        }

        return vm is null ? await CreateAsync(scope, definition) : await UpdateAsync(scope, vm, definition);
    }

    public static async Task<Outcome<Done>> DeleteAsync(WriteScope scope, string id, string actor, bool mayClear, IfMatch ifMatch)
    {
        if (await scope.Db.Vms.FindAsync(id) is not { } vm)
        {
            return ProblemTypes.UnknownVm;
        }

        if (!ifMatch.Matches(vm.Version))
        {
            return ProblemTypes.Stale;
        }

        if (await MigrationGuard.RefuseAsync(scope.Db, vm) is { } refused)
        {
            return refused;
        }

        var pages = await scope.Db.Pages.Where(row => row.Vm == id).ToListAsync();
        if (pages.Count > 0 && !mayClear)
        {
            // Deleted and created again, the VM would have an empty set.
            return new Problem(ProblemTypes.Forbidden, $"Deleting the VM drops {pages.Count} poisoned pages: that needs the scope pages:clear.");
        }

        var payload = new PagePayload(vm.MemoryInstance, vm.Generation, [], [.. pages.Select(PoisonedSet.ToCleared)]);
        var revision = scope.Change(ChangeKinds.VmDeleted, ChangeResources.Vm(id), actor, payload: payload.ToJson());
        await PlacementHistory.CloseAsync(scope, id, revision);
        if (await MigrationCommands.FindActiveAsync(scope.Db, id) is { } migration)
        {
            await MigrationEnd.FailAsync(scope, migration, vm, actor, new GateReason("vm-deleted"));
        }

        await ForgetOthersAsync(scope, id);
        scope.Db.Pages.RemoveRange(pages);
        scope.Db.Vms.Remove(vm);
        scope.Touch(vm.Host, id);
        return new Done();
    }

    /// <summary>
    /// A VM that is created again under this name is another: it concerns neither a host that stated this one nor one from which an override
    /// took it (I7). The placement history stays, for reports of the memory instances in it.
    /// </summary>
    private static async Task ForgetOthersAsync(WriteScope scope, string id)
    {
        foreach (var statement in await scope.Db.Statements.Where(row => row.Vm == id).ToListAsync())
        {
            scope.Touch(statement.Host, id);
            scope.Db.Statements.Remove(statement);
        }

        foreach (var placement in await scope.Db.Placements.Where(row => row.Vm == id && row.Fenced).ToListAsync())
        {
            scope.Touch(placement.Host, id);
            placement.Fenced = false;
        }
    }

    private static async Task<Outcome<PutResult>> CreateAsync(WriteScope scope, VmDefinition definition)
    {
        if (StoreEpochs.Of(scope.Revision) is > 0 and var epoch && await Quarantine.Awaited(scope.Db, epoch).AnyAsync())
        {
            // A host that has not stated yet may run it: the restored database has only forgotten it.
            return ProblemTypes.Quarantined;
        }

        if (definition.Host is not null)
        {
            if (await scope.Db.Hosts.FindAsync(definition.Host) is not { } host)
            {
                return new Problem(ProblemTypes.UnknownHost, Errors: new Dictionary<string, string[]> { ["$.host"] = ["Not a known host."] });
            }

            if (host.Drained)
            {
                return ProblemTypes.HostDrained;
            }
        }

        var revision = scope.Change(ChangeKinds.VmCreated, ChangeResources.Vm(definition.Id), definition.Actor, payload: definition.Memory);
        var vm = new VmRow
        {
            Id = definition.Id,
            Host = definition.Host,
            Memory = definition.Memory,
            Attach = definition.Attach,
            MemoryInstance = revision,
            Generation = revision,
            PlacementEpoch = revision,
            Version = revision,
        };
        scope.Db.Vms.Add(vm);
        PlacementHistory.Open(scope, vm, revision);
        scope.Touch(definition.Host, definition.Id);
        return new PutResult(Created: true);
    }

    private static async Task<Outcome<PutResult>> UpdateAsync(WriteScope scope, VmRow vm, VmDefinition definition)
    {
        if (vm.Host != definition.Host)
        {
            return ProblemTypes.UseMigration;
        }

        if (vm.Memory == definition.Memory && vm.Attach == definition.Attach)
        {
            return new PutResult(Created: false);
        }

        if (await MigrationGuard.RefuseAsync(scope.Db, vm) is { } refused)
        {
            return refused;
        }

        var dropped = await OutsideAsync(scope, vm, definition.Memory);
        if (dropped.Count > 0 && !definition.MayClear)
        {
            return new Problem(ProblemTypes.Forbidden, $"The new layout drops {dropped.Count} poisoned pages: that needs the scope pages:clear.");
        }

        Redefine(scope, vm, definition.Memory, definition.Attach, dropped, definition.Actor, null);
        return new PutResult(Created: false);
    }

    /// <summary>Pages of the set that do not lie in that memory.</summary>
    public static async Task<List<PoisonedPageRow>> OutsideAsync(WriteScope scope, VmRow vm, string memory)
    {
        var layout = MemoryLayout.Parse(memory);
        var pages = vm.Memory == memory ? [] : await scope.Db.Pages.Where(row => row.Vm == vm.Id).ToListAsync();
        return pages.FindAll(page => !layout.Contains(page.Frame, page.Shift));
    }

    /// <param name="dropped">Pages that are not in the new memory.</param>
    public static void Redefine(
        WriteScope scope, VmRow vm, string memory, string attach, IReadOnlyList<PoisonedPageRow> dropped, string actor, string? reason)
    {
        var payload = new PagePayload(vm.MemoryInstance, vm.Generation, [], [.. dropped.Select(PoisonedSet.ToCleared)]);
        var revision = scope.Change(ChangeKinds.VmUpdated, ChangeResources.Vm(vm.Id), actor, reason, payload.ToJson());
        vm.Memory = memory;
        vm.Attach = attach;
        vm.Version = revision;
        if (dropped.Count > 0)
        {
            scope.Db.Pages.RemoveRange(dropped);
            vm.PoisonedPages -= dropped.Count;
            vm.Generation = revision;
        }

        scope.Touch(vm.Host, vm.Id);
    }
}

public readonly record struct PutResult(bool Created);
