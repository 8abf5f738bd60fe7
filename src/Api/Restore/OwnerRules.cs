using Fleet.Contracts.Vms;
using Fleet.Data.Entities;

namespace Fleet.Api.Restore;

/// <summary>What the hosts' statements say of a VM, taken together.</summary>
/// <param name="Conflict">One of <see cref="QuarantineReasons"/>: the owner cannot be told; null when it can.</param>
/// <param name="Owner">Null when parked.</param>
/// <param name="MemoryInstance">At least; ignored with <paramref name="StartsAnew"/>.</param>
/// <param name="StartsAnew">No RAM of it can be anywhere: a new memory instance, so that it can be started cold.</param>
/// <param name="Attach">The owner's, as JSON; null to keep what the database says.</param>
internal sealed record Ownership(string? Conflict, string? Owner, long MemoryInstance, bool StartsAnew, string? Attach);

/// <summary>Who owns a VM after a restore from backup (GATE.md). Pure.</summary>
internal static class OwnerRules
{
    /// <param name="statements">Of all hosts, on this VM.</param>
    /// <param name="boots">Boot ids of the hosts that have stated: a VMM of any of these is accounted for.</param>
    public static Ownership Decide(VmRow vm, IReadOnlyList<StatementRow> statements, IReadOnlySet<string> boots)
    {
        var live = statements.Where(statement => statement.Live || statement.Unguarded).ToList();
        if (live.Count > 1)
        {
            return Conflict(vm, QuarantineReasons.TwoLiveRights);
        }

        if (live is [var only])
        {
            return Give(vm, only);
        }

        if (statements.Where(statement => statement.Right is not null).MaxBy(statement => statement.Right) is not { } newest)
        {
            // Nobody ever ran it. Where it has a host, its memory may begin there anew.
            return new Ownership(null, vm.Host, Math.Max(vm.MemoryInstance, NewestOf(statements)), vm.Host is not null, null);
        }

        if (newest is { Sealed: true, SealedTo: null })
        {
            return new Ownership(null, null, Math.Max(vm.MemoryInstance, newest.MemoryInstance), false, null);
        }

        return newest is { Sealed: true, SealedTo: { } target } && !boots.Contains(target.Split(':')[0])
            ? Conflict(vm, QuarantineReasons.SealedToUnknownHost)
            : Give(vm, newest);
    }

    /// <summary>An override names the owner; <paramref name="statement"/> is that host's, if it made one.</summary>
    public static Ownership Release(VmRow vm, string host, StatementRow? statement, IReadOnlyList<StatementRow> statements) =>
        statement is { Unguarded: true } or { Right: not null } ? Give(vm, statement)
            : new Ownership(null, host, Math.Max(vm.MemoryInstance, NewestOf(statements)), true, statement?.Attach);

    private static Ownership Give(VmRow vm, StatementRow statement)
    {
        var memory = Math.Max(vm.MemoryInstance, statement.MemoryInstance);

        // Its right is of RAM that was given up since: nobody has run the newer memory instance, and no view of an older one is taken.
        var isGone = statement is { Live: false, Unguarded: false } && statement.RightMemoryInstance < memory;
        return new Ownership(null, statement.Host, memory, isGone, statement.Attach);
    }

    private static long NewestOf(IReadOnlyList<StatementRow> statements) => statements.Select(statement => statement.MemoryInstance).DefaultIfEmpty().Max();

    private static Ownership Conflict(VmRow vm, string reason) => new(reason, vm.Host, vm.MemoryInstance, false, null);
}
