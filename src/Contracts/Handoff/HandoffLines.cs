namespace Fleet.Contracts.Handoff;

/// <summary>
/// A line from the VMM after the handoff. Its identity is (VMM process, <paramref name="Sequence"/>): the VMM keeps it until
/// the agent answers with an acknowledgement of that sequence or a later one, and sends it again on every new connection.
/// </summary>
/// <param name="Type">
/// <c>poison</c>: the VMM learned that a page of its guest's memory failed (SIGBUS BUS_MCEERR_AO or _AR on host memory);
/// <c>mce-injected</c>: the guest touched a poisoned page and got a machine check.
/// </param>
/// <param name="Sequence">Grows by one with each new event of this VMM process, from 1.</param>
/// <param name="GuestPhysicalAddress">Address of the failed page or of the access; hex string.</param>
/// <param name="Shift">Size of the failed page as a power of two, for <c>poison</c>: 12, 21 or 30.</param>
/// <param name="Class"><c>srar</c>, <c>srao</c>, <c>ucna</c> or <c>unknown</c>, for <c>poison</c>.</param>
/// <param name="Access"><c>read</c>, <c>write</c>, <c>fetch</c> or <c>unknown</c>, for <c>mce-injected</c>.</param>
/// <param name="Vcpu">Number of the vCPU, for <c>mce-injected</c>; null when the VMM does not know.</param>
/// <param name="Count">Accesses this line stands for (a VMM coalesces while it cannot deliver); at least 1.</param>
/// <param name="At">When it happened, by the VMM's clock; RFC 3339.</param>
public sealed record VmmEvent(
    string Type,
    long Sequence,
    string GuestPhysicalAddress,
    int? Shift,
    string? Class,
    string? Access,
    int? Vcpu,
    long Count,
    DateTimeOffset At)
{
    public const string Poison = "poison";
    public const string MceInjected = "mce-injected";
}

/// <summary>A line from the agent to the VMM.</summary>
/// <param name="Type">
/// <c>attached</c>: the handoff was accepted and every page known for the VM is armed;
/// <c>rejected</c>: it was not, <paramref name="Reason"/> says why, and the socket closes;
/// <c>acknowledged</c>: every event up to <paramref name="Sequence"/> is durable with the agent.
/// </param>
/// <param name="Sequence">For <c>attached</c> and <c>acknowledged</c>: the newest event sequence of this VMM process that is durable.</param>
/// <param name="Code">A stable code for <c>rejected</c>.</param>
/// <param name="Reason">Why, for a person to read.</param>
public sealed record AgentLine(string Type, long Sequence, string? Code, string? Reason)
{
    public const string Attached = "attached";
    public const string Rejected = "rejected";
    public const string Acknowledged = "acknowledged";
}
