using Fleet.Contracts.Faults;

namespace Fleet.Contracts.Agents;

/// <summary>
/// Body of POST /v1/hosts/{host}/reports: the head of the agent's spool. (spool id, sequence) was fixed when the report was
/// spooled; the incarnation is the present one. Applied strictly in sequence: lower ones are replays and change nothing (I5),
/// a gap is refused with 409 <c>spool-gap</c>. At most 1,000 reports.
/// </summary>
/// <param name="SpoolId">Made with the spool, 32 lower-case hex digits.</param>
/// <param name="Reports">Ascending by sequence, without gaps.</param>
/// <param name="Acks">Acknowledgements of the gate, applied after the reports; they hold the state of this moment and are never spooled. A malformed one counts for nothing.</param>
/// <param name="Obstacles">
/// All that keeps this host from staging migrations' VMs, at this moment; not spooled. When given, even empty, it replaces what the
/// host said before; when absent nothing changes.
/// </param>
public sealed record ReportsRequest(
    long Incarnation,
    string SpoolId,
    IReadOnlyList<AgentReport> Reports,
    IReadOnlyList<GateAck>? Acks = null,
    IReadOnlyList<GateObstacle>? Obstacles = null);

/// <summary>One report; a flat object whose <paramref name="Kind"/> says which fields count.</summary>
/// <param name="Sequence">Position in the spool, from 1, without gaps.</param>
/// <param name="Kind"><c>poison</c>, <c>hit</c>, <c>fault</c>, <c>marker-lost</c>, <c>seal</c>, <c>lifted</c>, <c>renounced</c> or <c>vmm-gone</c>.</param>
/// <param name="Vm">
/// The VM concerned. For a fault the one that has the memory mapped, with its memory instance and guest frame, or null when none has: then
/// those two are 0. A VM that is none of this host's is not kept, the fault itself is.
/// </param>
/// <param name="MemoryInstance">Memory instance that the agent knew when it spooled the report.</param>
/// <param name="Frame">Guest frame in 4 KiB units: the page's first for poison, the one accessed for a hit, the lowest of lost markers.</param>
/// <param name="Shift">Size of the page, for poison; null for a hit.</param>
/// <param name="Class">As in <see cref="Pages.PageReport"/>, for poison.</param>
/// <param name="Source">As in <see cref="Pages.PageReport"/>, for poison.</param>
/// <param name="PlacementEpoch">Placement epoch that the agent knew, for a hit or lost markers.</param>
/// <param name="FirstAt">When it was seen; for a coalesced hit the first time; for lost markers when they were last confirmed.</param>
/// <param name="LastAt">
/// For a coalesced hit the last time; for lost markers when they were found gone; otherwise as <paramref name="FirstAt"/>. Where it is before
/// that, as when the host's clock stepped back, the two change places.
/// </param>
/// <param name="Count">Accesses, errors or lost markers this report stands for; 1 for all others. More than 2^40 counts as 2^40.</param>
/// <param name="Origin">For poison, where it arose, fixed when it was spooled: <c>held</c>, <c>sealed</c> or <c>incoming</c>.</param>
/// <param name="Migration">For seal, lifted and renounced: the migration. Their epoch is <paramref name="PlacementEpoch"/>.</param>
/// <param name="MemoryFault">For a fault: the error of this host's memory.</param>
/// <param name="TargetVmmInstance">For a seal: the VMM instance to which this VMM's stream ended; null for a park.</param>
public sealed record AgentReport(
    long Sequence,
    string Kind,
    string? Vm,
    long MemoryInstance,
    long Frame,
    int? Shift,
    string? Class,
    string? Source,
    long? PlacementEpoch,
    DateTimeOffset FirstAt,
    DateTimeOffset LastAt,
    long Count,
    string? Access,
    int? Vcpu,
    string? Evidence,
    string? Outcome,
    string? Origin = null,
    string? Migration = null,
    string? TargetVmmInstance = null,
    MemoryFault? MemoryFault = null)
{
    public const string Poison = "poison";
    public const string Hit = "hit";

    /// <summary>An error of this host's memory, whether or not a VM has it mapped.</summary>
    public const string Fault = "fault";

    /// <summary>
    /// Pages that carried a poison marker carried none at the next look, and were armed again: what the VMM, or whoever maps its memory, took
    /// away. In between the guest may have read zeros there.
    /// </summary>
    public const string MarkerLost = "marker-lost";

    /// <summary>The source's guest is paused and latched, its stream ended, every unservable page reported before this, its barrier closed.</summary>
    public const string Seal = "seal";

    /// <summary>The target's barrier is open, durably; the guest runs there.</summary>
    public const string Lifted = "lifted";

    /// <summary>The target gave the permit's epoch up, durably, without ever having lifted its barrier.</summary>
    public const string Renounced = "renounced";

    /// <summary>No VMM process on this host holds the RAM of that memory instance any more.</summary>
    public const string VmmGone = "vmm-gone";
}

/// <summary>Where a poison report arose (GATE, "Reports of new poison"); it decides whether the page joins the VM's set.</summary>
public static class PoisonOrigins
{
    /// <summary>The host held the right to run the guest: always added, at any later time.</summary>
    public const string Held = "held";

    /// <summary>The source after its seal: a host fault only.</summary>
    public const string Sealed = "sealed";

    /// <summary>The target before its right: a host fault; its acknowledgement is void.</summary>
    public const string Incoming = "incoming";

    public static bool IsValid(string text) => text is Held or Sealed or Incoming;
}

/// <param name="Applied">Highest sequence of this spool that is durable; the agent removes everything up to it.</param>
/// <param name="Rejected">Reports of this request that can never be applied; counted, logged, and removed from the spool like the others.</param>
public sealed record ReportsResult(long Applied, IReadOnlyList<RejectedReport> Rejected);

/// <param name="Code">Stable code, such as <c>not-placed-here</c>, <c>unknown-vm</c>, <c>stale-memory-instance</c>, <c>frame-outside-memory</c>, <c>malformed-report</c>.</param>
public sealed record RejectedReport(long Sequence, string Code);
