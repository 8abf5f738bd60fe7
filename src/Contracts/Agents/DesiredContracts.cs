using Fleet.Contracts.Vms;

namespace Fleet.Contracts.Agents;

/// <summary>
/// Names of the server-sent events of GET /v1/hosts/{host}/desired. A stream opens with a snapshot: <c>snapshot-begin</c>,
/// one <c>vm</c> for each VM, <c>snapshot-end</c>; together they replace the local state, applied whole at the end or discarded.
/// After it: <c>delta</c> (applies only where <c>from</c> is the local generation, else the agent fetches that VM),
/// <c>vm</c> (replaces that VM whole), <c>vm-removed</c>, <c>bookmark</c> (keepalive). Event ids are revisions.
/// An agent that said, by <see cref="DesiredDigest"/>, that it holds exactly this gets one <c>unchanged</c> in place of the snapshot.
/// </summary>
public static class DesiredEvents
{
    public const string SnapshotBegin = "snapshot-begin";
    public const string Vm = "vm";
    public const string SnapshotEnd = "snapshot-end";
    public const string Unchanged = "unchanged";
    public const string Delta = "delta";
    public const string VmRemoved = "vm-removed";
    public const string Bookmark = "bookmark";
}

/// <summary>Everything an agent needs to know of one VM; also the answer of GET /v1/hosts/{host}/desired/{vm}.</summary>
/// <param name="Owner">The host that owns the VM.</param>
/// <param name="Digest"><see cref="PoisonDigest"/> of <paramref name="Pages"/>.</param>
/// <param name="Pages">The whole poisoned set, ascending by frame.</param>
/// <param name="Migration">The active migration, for the agents of its source and target.</param>
/// <param name="Quarantined">After a restore from backup: no right, no seal, no disarming until the control plane knows again what is so.</param>
/// <param name="ResetWanted">A reset waits for the owner's agent to attest that no VMM holds the old RAM.</param>
public sealed record DesiredVm(
    string Vm,
    string? Owner,
    IReadOnlyList<MemoryRegion> Memory,
    VmAttach Attach,
    long MemoryInstance,
    long Generation,
    long PlacementEpoch,
    string Digest,
    IReadOnlyList<PageKey> Pages,
    DesiredMigration? Migration = null,
    bool Quarantined = false,
    bool ResetWanted = false);

/// <summary>Change of one VM's poisoned set. Cleared pages are removed first, then the added ones are put in.</summary>
/// <param name="From">Generation it applies to.</param>
/// <param name="Generation">Generation it leads to.</param>
/// <param name="Digest">Digest of the set it leads to.</param>
public sealed record DesiredDelta(
    string Vm,
    long MemoryInstance,
    long From,
    long Generation,
    string Digest,
    IReadOnlyList<PageKey> Added,
    IReadOnlyList<PageKey> Cleared);

/// <summary>The VM no longer concerns this host. Absence never disarms: pages of a VMM that lives on stay armed.</summary>
public sealed record DesiredVmRemoved(string Vm, long Revision);

public sealed record SnapshotBegin(long Revision, int Vms);

/// <param name="Digest"><see cref="PoisonDigest.ComputeSnapshot"/> over the VMs of the snapshot.</param>
public sealed record SnapshotEnd(long Revision, string Digest);

/// <summary>What the agent said to hold is the desired state at that revision; it changes nothing.</summary>
/// <param name="Digest">The digest that the agent sent.</param>
public sealed record Unchanged(long Revision, string Digest);

public sealed record Bookmark(long Revision);
