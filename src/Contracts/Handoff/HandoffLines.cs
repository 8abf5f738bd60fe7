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
/// <c>acknowledged</c>: every event up to <paramref name="Sequence"/> is durable with the agent;
/// to a VMM with a barrier also <c>run</c>: the guest may run until the next <c>hold</c>; <c>hold</c>: the vCPUs must be out of the guest and
/// stay out until the next <c>run</c>, whoever else asks, also across a lost connection; answered by a <see cref="VmmState"/> line;
/// <c>skip</c>: <paramref name="Frames"/> must be declared undelivered, never read, when RAM is copied out (replaces the list before);
/// to a VMM that declares <c>zap</c> also <c>zap</c>: <paramref name="Frames"/> must be removed from its page tables by
/// <paramref name="Method"/>, answered by a <see cref="VmmZapped"/> line.
/// </param>
/// <param name="Sequence">
/// For <c>attached</c> and <c>acknowledged</c>: the newest event sequence of this VMM process that is durable; for <c>run</c> and <c>hold</c>, and
/// for <c>zap</c>: a number that grows with each of them on this connection.
/// </param>
/// <param name="Code">A stable code for <c>rejected</c>.</param>
/// <param name="Reason">Why, for a person to read.</param>
/// <param name="Frames">For <c>skip</c>: the poisoned frames; for <c>zap</c>: those to zap, whole pages of their memory.</param>
/// <param name="Method">For <c>zap</c>: <see cref="DontNeed"/> or <see cref="Remap"/>.</param>
public sealed record AgentLine(string Type, long Sequence, string? Code, string? Reason, IReadOnlyList<HandoffFrames>? Frames = null, string? Method = null)
{
    /// <summary>madvise(MADV_DONTNEED).</summary>
    public const string DontNeed = "dont-need";

    /// <summary>
    /// A new mapping of the same memory, made elsewhere, registered with the userfaultfd, poisoned (UFFDIO_POISON) and moved over the present
    /// one (mremap, MREMAP_FIXED): no access may find the range unmapped, or without its marker.
    /// </summary>
    public const string Remap = "remap";

    public const string Attached = "attached";
    public const string Rejected = "rejected";
    public const string Acknowledged = "acknowledged";
    public const string Run = "run";
    public const string Hold = "hold";
    public const string Skip = "skip";
    public const string Zap = "zap";
}

/// <summary>A line from a VMM that declares <c>zap</c>: the answer to one.</summary>
/// <param name="Type">Always <see cref="ZappedType"/>.</param>
/// <param name="Sequence">The line's that it answers.</param>
/// <param name="Error">Name of the errno, such as <c>EINVAL</c>, when not all of it was done; null when it was.</param>
public sealed record VmmZapped(string Type, long Sequence, string? Error = null)
{
    public const string ZappedType = "zapped";
}

/// <summary>Guest frames from <paramref name="Start"/> up to, not including, <paramref name="End"/>; 4 KiB units.</summary>
public sealed record HandoffFrames(long Start, long End);

/// <summary>
/// A line from a VMM with a barrier, at every change of its state and in answer to <c>hold</c> and <c>run</c>. It has no sequence and needs no
/// acknowledgement: only the newest counts, and the next handoff says it again.
/// </summary>
/// <param name="Type">Always <c>state</c>.</param>
/// <param name="State">One of <see cref="VmmStates"/>.</param>
/// <param name="StreamTarget">
/// VMM instance (<c>bootId:pid:startTime</c>) to which this process streamed all of its RAM to the end, confirmed by that one, with no guest
/// instruction run since; null otherwise. Running the guest makes it null.
/// </param>
/// <param name="Undelivered">For <c>loaded</c>: frames that the source declared undelivered. They are holes here and must never be served.</param>
/// <param name="Obeyed">
/// <see cref="AgentLine.Sequence"/> of the newest <c>run</c> or <c>hold</c> of this connection that was carried out before this state was
/// taken; 0 before the first. Without it a state from before a <c>hold</c> could be mistaken for its answer.
/// </param>
/// <param name="LastEvent">
/// Sequence of the newest event that this VMM process has queued by now. The agent seals only when it has stored all of them: what the
/// VMM learned while the right was held must be reported as such.
/// </param>
public sealed record VmmState(string Type, string State, string? StreamTarget, IReadOnlyList<HandoffFrames>? Undelivered = null, long Obeyed = 0, long LastEvent = 0)
{
    public const string StateType = "state";
}

/// <summary>States of a VMM with a barrier.</summary>
public static class VmmStates
{
    /// <summary>Has its RAM (fresh, or loaded and once permitted to run) and its vCPUs are out of the guest, by a hold or a pause.</summary>
    public const string Held = "held";

    /// <summary>The guest may execute instructions.</summary>
    public const string Running = "running";

    /// <summary>A new process that waits for, or receives, RAM from a stream; it has never run a guest.</summary>
    public const string Incoming = "incoming";

    /// <summary>The stream has ended and all RAM is here; it has never run a guest.</summary>
    public const string Loaded = "loaded";

    /// <summary>The guest stopped for good.</summary>
    public const string Failed = "failed";
}
