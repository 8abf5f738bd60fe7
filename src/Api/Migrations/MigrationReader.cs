using Fleet.Api.Agents;
using Fleet.Api.Lists;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Migrations;

public sealed class MigrationReader(StoreContexts contexts, StatusBoard board, Contests contests, TimeProvider time)
{
    public async Task<MigrationResource?> FindAsync(string id, CancellationToken cancellationToken)
    {
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        return await snapshot.Db.Migrations.SingleOrDefaultAsync(row => row.Id == id, cancellationToken) is { } row
            ? await ToResourceAsync(snapshot.Db, row, cancellationToken)
            : null;
    }

    /// <summary>Waits until the migration is as asked for, or time is up; either way with what is.</summary>
    /// <param name="isEnough">Given the resource when it was first read, and as it is now.</param>
    public async Task<MigrationResource?> WaitAsync(
        string id, TimeSpan atMost, Func<MigrationResource, MigrationResource, bool> isEnough, CancellationToken cancellationToken)
    {
        var deadline = time.GetUtcNow() + atMost;
        var first = await FindAsync(id, cancellationToken);
        var found = first;
        while (found is not null && !isEnough(first!, found))
        {
            // The signal first, then the state again: a change in between is seen either way.
            var next = board.Changed(found.TargetHost ?? found.SourceHost!).Next;
            found = await FindAsync(id, cancellationToken);
            var left = deadline - time.GetUtcNow();
            if (found is null || isEnough(first!, found) || left <= TimeSpan.Zero)
            {
                return found;
            }

            try
            {
                await next.WaitAsync(left, time, cancellationToken);
            }
            catch (TimeoutException)
            {
                return await FindAsync(id, cancellationToken);
            }
        }

        return found;
    }

    public async Task<ItemList<MigrationResource>> ListAsync(string after, int limit, string? vm, string? state, CancellationToken cancellationToken)
    {
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        var query = snapshot.Db.Migrations.Where(row => row.Id.CompareTo(after) > 0);
        query = vm is null ? query : query.Where(row => row.Vm == vm);
        query = state is null ? query : query.Where(row => row.State == state);
        var rows = await query.OrderBy(row => row.Id).Take(limit + 1).ToListAsync(cancellationToken);
        var items = new List<MigrationResource>();
        foreach (var row in rows.Take(limit))
        {
            items.Add(await ToResourceAsync(snapshot.Db, row, cancellationToken));
        }

        return new ItemList<MigrationResource>(items, rows.Count > limit ? Cursor.Of(rows[limit - 1].Id) : null);
    }

    /// <summary>The target knows the present set and has its VMM attached, or has armed it.</summary>
    internal static bool IsStaged(VmStatus? status, VmRow vm) =>
        status is not null
        && status.MemoryInstance == vm.MemoryInstance
        && status.Generation == vm.Generation
        && ((status.State == EnforcementStates.Armed && status.ArmedGeneration == vm.Generation)
            || (status.State == EnforcementStates.Pending && status.Reason == GateStatus.Staged));

    private async Task<MigrationResource> ToResourceAsync(FleetDbContext db, MigrationRow row, CancellationToken cancellationToken)
    {
        var vm = row.IsActive ? await db.Vms.SingleOrDefaultAsync(vm => vm.Id == row.Vm, cancellationToken) : null;
        var reasons = MigrationColumns.ReasonsOf(row);
        if (vm is not null && row.State == MigrationStates.Switching)
        {
            reasons = [.. reasons, .. await Gate.ReasonsAsync(db, row, vm, cancellationToken)];
        }

        var isReady = false;
        if (vm is not null && row is { State: MigrationStates.Preparing, TargetHost: not null }
            && await db.Hosts.SingleOrDefaultAsync(host => host.Id == row.TargetHost, cancellationToken) is { } target)
        {
            // What a switchover would be refused for: drained since, or claimed by an agent that cannot do as much.
            var early = EarlyChecks.Of(target, MigrationColumns.AttachOf(row.Attach)!, contests.ReasonOf(target.Id));
            reasons = [.. early, .. reasons];
            isReady = early.Count == 0 && IsStaged(board.StatusOf(row.TargetHost, row.Vm), vm);
        }

        return new MigrationResource(
            row.Id,
            row.Vm,
            row.SourceHost,
            row.TargetHost,
            MigrationColumns.AttachOf(row.Attach),
            isReady ? MigrationStates.Ready : row.State,
            vm?.Generation ?? row.Generation,
            reasons,
            MigrationColumns.PermitOf(row),
            row.ReturnWanted,
            row.ExpiresAt.ToTime());
    }
}
