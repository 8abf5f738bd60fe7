using Fleet.Api.Agents;
using Fleet.Api.Problems;
using Fleet.Contracts;
using Fleet.Contracts.Hosts;
using Fleet.Data.Entities;
using Fleet.Data.Placement;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Restore;

/// <summary>What ends a quarantine that the hosts' statements cannot end.</summary>
internal static class OverrideCommands
{
    /// <summary>Asserts that the host is dead and runs no guest. Refused where it is heard, or has said itself what it holds.</summary>
    /// <returns>Number of VMs that stay quarantined.</returns>
    public static async Task<Outcome<StatementTaken>> FenceAsync(WriteScope scope, string host, string reason, string actor, StatusBoard board)
    {
        var epoch = StoreEpochs.Of(scope.Revision);
        if (await scope.Db.Hosts.FindAsync(host) is not { Incarnation: not null } row)
        {
            return ProblemTypes.HostNotFound;
        }

        // A host that is awaited keeps VMs from being created, also where none is quarantined.
        if (Quarantine.StateOf(row, scope.Revision) != StatementStates.Pending && !await scope.Db.Vms.AnyAsync(vm => vm.Quarantined))
        {
            return ProblemTypes.NotQuarantined;
        }

        if (row.StatedEpoch == epoch)
        {
            return new Problem(ProblemTypes.FenceRefused, "It has stated what it holds.");
        }

        // What the database remembers from before the backup does not count as having been heard.
        if (board.HeardAt(host) is not null && board.StateOf(host) == HostStates.Online)
        {
            return ProblemTypes.HostOnline;
        }

        if (row.FencedEpoch != epoch)
        {
            row.FencedEpoch = epoch;
            row.Version = scope.Change(ChangeKinds.HostFenced, ChangeResources.Host(host), actor, reason);
        }

        return new StatementTaken(await Quarantine.TryEndAsync(scope, actor), []);
    }

    /// <summary>Names the owner of a VM whose owner the statements do not tell.</summary>
    public static async Task<Outcome<Done>> ReleaseAsync(WriteScope scope, string id, string host, string reason, string actor)
    {
        if (await scope.Db.Vms.FindAsync(id) is not { } vm)
        {
            return ProblemTypes.UnknownVm;
        }

        if (!vm.Quarantined)
        {
            return ProblemTypes.NotQuarantined;
        }

        if (await Quarantine.Awaited(scope.Db, StoreEpochs.Of(scope.Revision)).Select(row => row.Id).ToListAsync() is { Count: > 0 } awaited)
        {
            return new Problem(ProblemTypes.Quarantined, $"Statements are awaited of {string.Join(", ", awaited.Take(20))}: they may tell the owner.");
        }

        if (await scope.Db.Hosts.FindAsync(host) is null)
        {
            return new Problem(ProblemTypes.UnknownHost, Errors: new Dictionary<string, string[]> { ["$.host"] = ["Not a known host."] });
        }

        var statements = await scope.Db.Statements.Where(row => row.Vm == id).ToListAsync();
        var ownership = OwnerRules.Release(vm, host, statements.Find(row => row.Host == host), statements);
        var open = await PlacementHistory.OpenOfAsync(scope, [id]);
        await Quarantine.EndAsync(scope, vm, ownership, statements, open[id], ChangeKinds.VmReleased, actor, reason);
        return new Done();
    }
}
