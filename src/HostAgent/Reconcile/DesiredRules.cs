using Fleet.Contracts;
using Fleet.Contracts.Agents;

namespace Fleet.HostAgent.Reconcile;

public enum DesiredVerdict
{
    Adopt,

    /// <summary>Older than what is known: a delayed or replayed view. It changes nothing (I3).</summary>
    Older,

    /// <summary>It names a VM by what cannot be an id, and would be a path of this host's: it changes nothing.</summary>
    Invalid,

    /// <summary>It does not follow from what is known, or its digest is wrong: the VM must be fetched whole.</summary>
    Refetch,
}

/// <summary>Which view of a VM's desired state replaces which. Pure.</summary>
public static class DesiredRules
{
    /// <param name="known">Local state, or what it was before the VM was removed; null when the VM is new here.</param>
    /// <param name="promised">Store epoch that this host has promised: views of older ones are refused for good.</param>
    public static DesiredVerdict Judge(DesiredVm? known, DesiredVm incoming, long promised = 0)
    {
        if (StoreEpochs.Of(incoming.PlacementEpoch) < promised)
        {
            return DesiredVerdict.Older;
        }

        if (known is not null
            && (incoming.MemoryInstance < known.MemoryInstance
                || incoming.PlacementEpoch < known.PlacementEpoch
                || incoming.Generation < known.Generation))
        {
            return DesiredVerdict.Older;
        }

        return PoisonDigest.Compute(incoming.Vm, incoming.MemoryInstance, incoming.Pages) == incoming.Digest
            ? DesiredVerdict.Adopt
            : DesiredVerdict.Refetch;
    }

    /// <summary>
    /// What a view that may be adopted makes of the local state. After a restore from backup a quarantined view says only that: the control
    /// plane may have forgotten pages, so what was known of the VM stays as it is.
    /// </summary>
    public static DesiredVm Take(DesiredVm? known, DesiredVm incoming) => known switch
    {
        { Quarantined: true } when incoming.Quarantined => known,
        not null when incoming.Quarantined => known with { Quarantined = true, Migration = null, ResetWanted = false },
        _ => incoming,
    };

    /// <summary>
    /// What an agent may say to hold, as <see cref="DesiredDigest"/>: a control plane that wants the same then sends nothing. Null
    /// where anything is in doubt, so that a snapshot settles it: a set that its own digest contradicts, or a view that was promised to be refused.
    /// </summary>
    public static string? Holds(IReadOnlyCollection<DesiredVm> known, long promised) =>
        known.All(vm => StoreEpochs.Of(vm.PlacementEpoch) >= promised && PoisonDigest.Compute(vm.Vm, vm.MemoryInstance, vm.Pages) == vm.Digest)
            ? DesiredDigest.Compute(known)
            : null;

    /// <returns>The verdict, and with Adopt the state that the delta leads to.</returns>
    public static (DesiredVerdict Verdict, DesiredVm? Result) Apply(DesiredVm? known, DesiredDelta delta)
    {
        if (known is null || delta.MemoryInstance != known.MemoryInstance)
        {
            return (DesiredVerdict.Refetch, null);
        }

        if (delta.Generation <= known.Generation || known.Quarantined)
        {
            // What ends a quarantine is a whole view.
            return (DesiredVerdict.Older, null);
        }

        if (delta.From != known.Generation)
        {
            return (DesiredVerdict.Refetch, null);
        }

        var result = known with
        {
            Generation = delta.Generation,
            Digest = delta.Digest,
            Pages = Merge(known.Pages, delta),
        };
        var verdict = Judge(known, result);
        return (verdict, verdict == DesiredVerdict.Adopt ? result : null);
    }

    private static List<PageKey> Merge(IReadOnlyList<PageKey> pages, DesiredDelta delta)
    {
        var cleared = delta.Cleared.ToHashSet();
        var added = delta.Added.ToHashSet();
        var large = delta.Added.Where(page => page.Shift > FrameMath.FrameShift).ToList();
        return
        [
            .. pages
                .Where(page => !cleared.Contains(page) && !added.Contains(page)
                    && !large.Any(outer => FrameMath.Covers(outer.Frame, outer.Shift, page.Frame, page.Shift)))
                .Concat(added)
                .OrderBy(page => page.Frame),
        ];
    }
}
