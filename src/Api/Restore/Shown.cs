using Fleet.Contracts;
using Fleet.Data;
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

        foreach (var shown in Vms)
        {
            if (await db.Vms.AsNoTracking().SingleOrDefaultAsync(vm => vm.Id == shown.Vm) is { } vm
                && ((IsPresent(shown.Generation, counter) && shown.Generation > vm.Generation)
                    || (IsPresent(shown.MemoryInstance, counter) && shown.MemoryInstance > vm.MemoryInstance)))
            {
                return $"the agent of {Host} knows {shown.Vm} at generation {shown.Generation}, and {vm.Generation} is its newest here";
            }
        }

        return null;
    }

    private static bool IsPresent(long number, long counter) => StoreEpochs.Of(number) == StoreEpochs.Of(counter);
}
