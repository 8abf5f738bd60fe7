namespace Fleet.Contracts.Agents;

/// <summary>Body of POST /v1/hosts/{host}/claim: a new agent process takes over the host. Every claim supersedes the one before.</summary>
/// <param name="BootId">/proc/sys/kernel/random/boot_id of the host.</param>
/// <param name="AgentVersion">Version of the agent program.</param>
/// <param name="Kernel">Kernel release (uname -r).</param>
/// <param name="Capabilities">Probed capability table: name to value, such as <c>uffd.poison</c> → <c>yes</c>.</param>
/// <param name="HighestSeen">
/// Highest number that the agent durably knows of this control plane: generations, epochs, memory instances, incarnations, and the
/// floor of the store epoch that it promised. One from the future proves that the database was put back from a backup.
/// </param>
/// <param name="LastIncarnation">What the last claim of this host's agent was answered; null when it does not know.</param>
/// <param name="Spool">How far this agent's spool was answered; a control plane that knows less of it was put back from a backup.</param>
public sealed record ClaimRequest(
    string BootId,
    string AgentVersion,
    string Kernel,
    IReadOnlyDictionary<string, string> Capabilities,
    long HighestSeen = 0,
    long? LastIncarnation = null,
    SpoolPosition? Spool = null);

/// <param name="SpoolId">Made with the spool, 32 lower-case hex digits.</param>
/// <param name="Applied">Highest sequence of it that the control plane answered to be durable; 0 before the first.</param>
public sealed record SpoolPosition(string SpoolId, long Applied);

/// <param name="Incarnation">Sent with every later request of this agent process; an older one is answered 409 <c>agent-superseded</c>.</param>
/// <param name="HeartbeatInterval">Duration text such as <c>5s</c>.</param>
/// <param name="StoreEpoch">The present one; above the agent's promise it promises this one, durably, before anything else.</param>
/// <param name="StatementRequired">Nothing but a statement of this host is taken until it has made one in this store epoch.</param>
public sealed record ClaimResult(long Incarnation, string HeartbeatInterval, long StoreEpoch = 0, bool StatementRequired = false);
