namespace Fleet.Contracts.Hosts;

/// <param name="State"><c>online</c>, <c>unknown</c> or <c>offline</c>, by the server's clock.</param>
/// <param name="Incarnation">The agent process that claimed the host last; null before the first claim.</param>
/// <param name="Labels">As PUT /v1/hosts/{host}/labels set them.</param>
/// <param name="Drained">Nothing new is placed on the host; what runs there stays.</param>
/// <param name="Vms">Number of VMs placed on the host.</param>
/// <param name="Version">The ETag, as a number.</param>
/// <param name="Statement">After a restore from backup: one of <see cref="StatementStates"/>; null when none is needed.</param>
/// <param name="Contested">Why no migration to it begins: two agent processes claim it in turn; null when they do not.</param>
public sealed record HostResource(
    string Id,
    string State,
    long? Incarnation,
    string? AgentVersion,
    string? Kernel,
    IReadOnlyDictionary<string, string>? Capabilities,
    DateTimeOffset? LastSeenAt,
    IReadOnlyDictionary<string, string> Labels,
    bool Drained,
    int Vms,
    long Version,
    string? Statement = null,
    string? Contested = null);

public static class StatementStates
{
    /// <summary>What the host holds is not known yet; quarantined VMs wait for it.</summary>
    public const string Pending = "pending";

    public const string Stated = "stated";

    /// <summary>An override asserts that it is dead and runs no guest.</summary>
    public const string Fenced = "fenced";
}

/// <summary>Body of POST /v1/hosts/{host}/fence: asserts that the host is dead and runs no guest.</summary>
public sealed record FenceRequest(string Reason);


/// <summary>Body of PUT /v1/hosts/{host}/drain.</summary>
/// <param name="Reason">Why; kept in the audit trail.</param>
public sealed record DrainRequest(string Reason);

public static class HostStates
{
    public const string Online = "online";
    public const string Unknown = "unknown";
    public const string Offline = "offline";
}
