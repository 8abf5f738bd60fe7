using System.Net;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>The control plane answered, but not with success.</summary>
public sealed class ControlPlaneException(HttpStatusCode status, string code, string? detail)
    : Exception($"{(int)status} {code}{(detail is null ? string.Empty : $": {detail}")}")
{
    public const string AgentSuperseded = "agent-superseded";
    public const string StatementRequired = "statement-required";
    public const string SpoolGap = "spool-gap";

    public HttpStatusCode Status { get; } = status;

    /// <summary>The stable code of the problem details.</summary>
    public string Code { get; } = code;
}
