namespace Fleet.Contracts;

/// <summary>Paths of the API, for clients written in C#. Ids need no escaping: <see cref="ResourceId"/> allows only unreserved characters.</summary>
public static class Routes
{
    public const string Enroll = "/v1/agents/enroll";
    public const string JoinTokens = "/v1/join-tokens";
    public const string Tokens = "/v1/tokens";
    public const string Vms = "/v1/vms";
    public const string Hosts = "/v1/hosts";
    public const string Hits = "/v1/hits";
    public const string Faults = "/v1/faults";
    public const string FaultSummary = "/v1/faults/summary";
    public const string Changes = "/v1/changes";

    public static string Vm(string vm) => $"/v1/vms/{vm}";

    public static string Pages(string vm) => $"/v1/vms/{vm}/pages";

    public static string Page(string vm, long frame) => FormattableString.Invariant($"/v1/vms/{vm}/pages/{frame}");

    public const string Migrations = "/v1/migrations";

    public static string Migration(string id) => $"/v1/migrations/{id}";

    public static string Switchover(string id) => $"/v1/migrations/{id}/switchover";

    public static string Complete(string id) => $"/v1/migrations/{id}/complete";

    public static string Abort(string id) => $"/v1/migrations/{id}/abort";

    public static string Reset(string vm) => $"/v1/vms/{vm}/reset";

    public static string Park(string vm) => $"/v1/vms/{vm}/park";

    public static string Rebuild(string vm) => $"/v1/vms/{vm}/rebuild";

    public static string Statement(string host) => $"/v1/hosts/{host}/statement";

    public static string Fence(string host) => $"/v1/hosts/{host}/fence";

    public static string Release(string vm) => $"/v1/vms/{vm}/release";

    public static string Host(string host) => $"/v1/hosts/{host}";

    public static string HostDrain(string host) => $"/v1/hosts/{host}/drain";

    public static string HostLabels(string host) => $"/v1/hosts/{host}/labels";

    public static string Claim(string host) => $"/v1/hosts/{host}/claim";

    /// <param name="holds">What the agent holds, as <see cref="Agents.DesiredDigest"/>; null where it does not say.</param>
    public static string Desired(string host, long incarnation, string? holds = null) =>
        FormattableString.Invariant($"/v1/hosts/{host}/desired?incarnation={incarnation}{(holds is null ? string.Empty : "&holds=" + holds)}");

    /// <summary>Header of the stream: about how often an idle one carries a bookmark, as duration text.</summary>
    public const string BookmarkInterval = "Fleet-Bookmark-Interval";

    public static string DesiredVm(string host, string vm) => $"/v1/hosts/{host}/desired/{vm}";

    public static string Heartbeat(string host) => $"/v1/hosts/{host}/heartbeat";

    public static string Credential(string host) => $"/v1/hosts/{host}/credential";

    public static string Token(string id) => $"/v1/tokens/{id}";

    public static string JoinToken(string id) => $"/v1/join-tokens/{id}";

    public static string Reports(string host) => $"/v1/hosts/{host}/reports";
}
