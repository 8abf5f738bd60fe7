namespace Fleet.Contracts.Agents;

/// <summary>Body of POST /v1/hosts/{host}/heartbeat; sent at the interval, and at once when what is armed changes.</summary>
/// <param name="UnreportedHits">
/// Accesses to poisoned pages that the host's kernel counted and no report holds, since the agent process started: a guest that hammers a
/// page makes more of them than are read one by one.
/// </param>
public sealed record HeartbeatRequest(long Incarnation, IReadOnlyList<VmStatus> Vms, long UnreportedHits = 0);

/// <summary>What the agent has confirmed for one VM, from evidence it took itself.</summary>
/// <param name="MemoryInstance">Memory instance of the set it is talking of.</param>
/// <param name="Generation">Generation of the desired set it knows.</param>
/// <param name="ArmedGeneration">Newest generation whose whole set it confirmed as covered in the attached VMM process; null when none (not attached, or not yet).</param>
/// <param name="Digest"><see cref="PoisonDigest"/> over the set confirmed at <paramref name="ArmedGeneration"/>; null with it.</param>
/// <param name="State"><c>armed</c>, <c>pending</c> or <c>failed</c>.</param>
/// <param name="Reason">A stable code when not armed, such as <c>not-attached</c> or <c>layout-mismatch</c>.</param>
/// <param name="Exceptions">Pages that could not be armed; all others of the set are as <paramref name="State"/> says. At most 10,000.</param>
public sealed record VmStatus(
    string Vm,
    long MemoryInstance,
    long Generation,
    long? ArmedGeneration,
    string? Digest,
    string State,
    string? Reason,
    IReadOnlyList<PageException> Exceptions);

/// <param name="State"><c>failed</c> or <c>pending</c>; <c>armed</c> where only <paramref name="ArmedShift"/> is the exception.</param>
/// <param name="ArmedShift">Size of the wider page armed instead, where that is the exception; null otherwise.</param>
/// <param name="Reason">Call and errno, such as <c>UFFDIO_POISON: EINVAL</c>.</param>
public sealed record PageException(long Frame, int Shift, string State, int? ArmedShift, string? Reason);

/// <param name="HeartbeatInterval">Duration text until the next heartbeat is due.</param>
/// <param name="Refetch">VMs whose generation or set differs from the control plane's: the agent fetches them whole.</param>
public sealed record HeartbeatResult(string HeartbeatInterval, IReadOnlyList<string> Refetch);
