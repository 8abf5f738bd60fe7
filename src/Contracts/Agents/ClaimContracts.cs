namespace Fleet.Contracts.Agents;

/// <summary>Body of POST /v1/hosts/{host}/claim: a new agent process takes over the host. Every claim supersedes the one before.</summary>
/// <param name="BootId">/proc/sys/kernel/random/boot_id of the host.</param>
/// <param name="AgentVersion">Version of the agent program.</param>
/// <param name="Kernel">Kernel release (uname -r).</param>
/// <param name="Capabilities">Probed capability table: name to value, such as <c>uffd.poison</c> → <c>yes</c>.</param>
public sealed record ClaimRequest(string BootId, string AgentVersion, string Kernel, IReadOnlyDictionary<string, string> Capabilities);

/// <param name="Incarnation">Sent with every later request of this agent process; an older one is answered 409 <c>agent-superseded</c>.</param>
/// <param name="HeartbeatInterval">Duration text such as <c>5s</c>.</param>
public sealed record ClaimResult(long Incarnation, string HeartbeatInterval);
