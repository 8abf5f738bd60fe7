namespace Fleet.Contracts.Hosts;

/// <param name="State"><c>online</c>, <c>unknown</c> or <c>offline</c>, by the server's clock.</param>
/// <param name="Incarnation">The agent process that claimed the host last; null before the first claim.</param>
/// <param name="Labels">As PUT /v1/hosts/{host}/labels set them.</param>
/// <param name="Drained">Nothing new is placed on the host; what runs there stays.</param>
/// <param name="Vms">Number of VMs placed on the host.</param>
/// <param name="Version">The ETag, as a number.</param>
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
    long Version);

/// <summary>Body of PUT /v1/hosts/{host}/drain.</summary>
/// <param name="Reason">Why; kept in the audit trail.</param>
public sealed record DrainRequest(string Reason);

public static class HostStates
{
    public const string Online = "online";
    public const string Unknown = "unknown";
    public const string Offline = "offline";
}
