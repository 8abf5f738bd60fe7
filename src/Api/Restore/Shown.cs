using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Data;
using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Restore;

/// <summary>Numbers of one VM that an agent shows.</summary>
internal sealed record ShownVm(string Vm, long Generation, long MemoryInstance);

/// <summary>
/// What an agent's request shows to have been issued. A number of the present store epoch that the database has not issued yet, or
/// that is above the row it belongs to, proves a rollback; one of an older store epoch proves nothing new.
/// </summary>
internal sealed record Shown(string Host, long HighestSeen, long? Incarnation, IReadOnlyList<ShownVm> Vms)
{
    /// <summary>How far the agent's spool was answered; null where the request does not tell.</summary>
    public SpoolPosition? Spool { get; init; }

    public long Highest => Vms.SelectMany(vm => new[] { vm.Generation, vm.MemoryInstance }).Append(HighestSeen).Append(Incarnation ?? 0).Max();

    /// <summary>A number so far ahead that no restore explains it: it must not push the store epoch to its end.</summary>
    public bool IsBeyondBelief(long counter) => StoreEpochs.Of(Highest) > StoreEpochs.Of(counter) + StoreEpochs.MaximumLead;

    /// <param name="db">A context that sees the state as of the counter.</param>
    /// <returns>What proves that the database was put back; null when nothing does.</returns>
    public async Task<string?> FindProofAsync(FleetDbContext db, long counter)
    {
        if (IsBeyondBelief(counter))
        {
            return null;
        }

        if (Highest > counter)
        {
            return $"the agent of {Host} shows number {Highest}, and {counter} is the newest here";
        }

        var row = await db.Hosts.AsNoTracking().SingleOrDefaultAsync(host => host.Id == Host);
        if (Incarnation is { } incarnation && IsPresent(incarnation, counter) && incarnation > (row?.Incarnation ?? 0))
        {
            return $"the agent of {Host} shows incarnation {incarnation}, and {row?.Incarnation ?? 0} is its newest here";
        }

        if (await FindForgottenReportAsync(db, row, counter) is { } forgotten)
        {
            return forgotten;
        }

        string[] ids = [.. Vms.Select(vm => vm.Vm)];
        var known = ids.Length == 0 ? [] : await db.Vms.AsNoTracking()
            .Where(vm => EF.Parameter(ids).Contains(vm.Id))
            .Select(vm => new { vm.Id, vm.Generation, vm.MemoryInstance })
            .ToDictionaryAsync(vm => vm.Id);
        foreach (var shown in Vms)
        {
            if (known.GetValueOrDefault(shown.Vm) is { } vm
                && ((IsPresent(shown.Generation, counter) && shown.Generation > vm.Generation)
                    || (IsPresent(shown.MemoryInstance, counter) && shown.MemoryInstance > vm.MemoryInstance)))
            {
                return $"the agent of {Host} knows {shown.Vm} at generation {shown.Generation}, and {vm.Generation} is its newest here";
            }
        }

        return null;
    }

    /// <summary>
    /// Whatever numbers were issued since: an agent drops a report only when it was told that it is durable. One that has still to state what
    /// it holds settles it there; and a spool that this database never saw says something only where the agent's last life is known here.
    /// </summary>
    private async Task<string?> FindForgottenReportAsync(FleetDbContext db, HostRow? host, long counter)
    {
        if (Spool is not { } spool || host is null || Admission.IsStatementRequired(host, counter))
        {
            return null;
        }

        var row = await db.Spools.AsNoTracking().SingleOrDefaultAsync(known => known.Host == Host && known.SpoolId == spool.SpoolId);
        var last = row?.LastSequence ?? (Incarnation == host.Incarnation ? 0 : spool.Applied);
        return spool.Applied > last ? $"the agent of {Host} was told that report {spool.Applied} of its spool is stored, and {last} is the newest here" : null;
    }

    private static bool IsPresent(long number, long counter) => StoreEpochs.Of(number) == StoreEpochs.Of(counter);
}
