namespace Fleet.Contracts.Vms;

/// <summary>Body of PUT /v1/vms/{vm}.</summary>
/// <param name="Host">Host that runs the VM; null when it is parked. Only a migration changes it later.</param>
/// <param name="Memory">Guest RAM, at most 64 regions that do not overlap.</param>
/// <param name="Attach">How the host's agent reaches the VMM's memory.</param>
public sealed record VmRequest(string? Host, IReadOnlyList<MemoryRegion> Memory, VmAttach Attach);

/// <summary>One contiguous piece of guest RAM.</summary>
/// <param name="GuestPhysicalAddress">Hex string, aligned to <paramref name="PageBytes"/>.</param>
/// <param name="Bytes">Length in bytes, a multiple of <paramref name="PageBytes"/>.</param>
/// <param name="PageBytes">Page size of the backing in bytes: 4096, 2097152 or 1073741824.</param>
public sealed record MemoryRegion(string GuestPhysicalAddress, long Bytes, int PageBytes);

/// <summary>How an agent attaches; one flat object for every kind.</summary>
/// <param name="Kind"><c>handoff</c>, <c>qemu</c> or <c>firecracker</c>.</param>
/// <param name="QmpSocket">Path of the QMP socket on the host (qemu).</param>
/// <param name="MemoryFile">Path of the snapshot's memory file on the host (firecracker).</param>
/// <param name="Socket">Path of the socket on the host that the VMM connects to; null for the agent's own <c>{vm}.sock</c>.</param>
public sealed record VmAttach(string Kind, string? QmpSocket = null, string? MemoryFile = null, string? Socket = null);

/// <param name="Generation">Newest change to the VM's poisoned set (I3: it only grows).</param>
/// <param name="PlacementEpoch">Fencing token: changes whenever ownership moves.</param>
/// <param name="MemoryInstance">One life of the guest's RAM: a cold reset or rebuild starts a new one.</param>
/// <param name="PoisonedPages">Number of poisoned pages.</param>
/// <param name="Enforcement">The owner first, then the source and target of an active migration.</param>
/// <param name="Version">The ETag, as a number.</param>
/// <param name="Quarantined">After a restore from backup, until the hosts have said what they hold.</param>
/// <param name="ResetWanted">A reset waits for the owner's agent to attest that no VMM holds the old RAM.</param>
/// <param name="QuarantineReason">One of <see cref="QuarantineReasons"/>; null when it is not quarantined.</param>
public sealed record VmResource(
    string Id,
    string? Host,
    IReadOnlyList<MemoryRegion> Memory,
    VmAttach Attach,
    long MemoryInstance,
    long Generation,
    long PlacementEpoch,
    long PoisonedPages,
    IReadOnlyList<VmEnforcement> Enforcement,
    long Version,
    bool Quarantined = false,
    bool ResetWanted = false,
    string? QuarantineReason = null);

/// <summary>Why a VM is quarantined.</summary>
public static class QuarantineReasons
{
    /// <summary>Hosts have not yet stated what they hold: their <c>statement</c> is <c>pending</c>.</summary>
    public const string AwaitingStatements = "awaiting-statements";

    /// <summary>Two hosts state that its guest runs on them. An override names the owner.</summary>
    public const string TwoLiveRights = "two-live-rights";

    /// <summary>It was sealed towards a VMM of a host that has not stated: its guest may run there. An override names the owner.</summary>
    public const string SealedToUnknownHost = "sealed-to-unknown-host";
}

/// <summary>Body of POST /v1/vms/{vm}/release: the override for a VM whose owner the hosts' statements do not tell.</summary>
/// <param name="Host">The owner from now on.</param>
public sealed record ReleaseRequest(string Host, string Reason);

/// <summary>What a host has confirmed for a VM.</summary>
/// <param name="ArmedGeneration">Newest generation whose whole set the host's agent confirmed as covered; null before the first.</param>
/// <param name="State">
/// <c>armed</c>: confirmed for the present generation and digest; <c>pending</c>: not yet; <c>failed</c>: the agent cannot;
/// <c>unknown</c>: the evidence is older than the claim (agent silent, superseded, or never heard since the API started).
/// </param>
/// <param name="Reason">A stable code and text when failed or pending for a known reason, such as <c>not-attached</c>.</param>
public sealed record VmEnforcement(string Host, long? ArmedGeneration, string State, string? Reason = null);

public static class EnforcementStates
{
    public const string Armed = "armed";
    public const string Pending = "pending";
    public const string Failed = "failed";
    public const string Unknown = "unknown";
}

public static class AttachKinds
{
    public const string Handoff = "handoff";
    public const string Qemu = "qemu";
    public const string Firecracker = "firecracker";
}
