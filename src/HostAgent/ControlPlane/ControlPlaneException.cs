using System.Net;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>The control plane answered, but not with success.</summary>
/// <param name="retryAfter">When it asks to be asked again; null where it does not say.</param>
public sealed class ControlPlaneException(HttpStatusCode status, string code, string? detail, TimeSpan? retryAfter = null)
    : Exception($"{(int)status} {code}{(detail is null ? string.Empty : $": {detail}")}")
{
    public const string AgentSuperseded = "agent-superseded";
    public const string StatementRequired = "statement-required";
    public const string UnknownVm = "unknown-vm";
    public const string SpoolGap = "spool-gap";

    // What a server may ask for. Longer would be a mistake of it, or of something in between.
    private static readonly TimeSpan LongestPause = TimeSpan.FromMinutes(5);

    public HttpStatusCode Status { get; } = status;

    /// <summary>Not to be asked again before this has passed; zero where the control plane did not say.</summary>
    public TimeSpan RetryAfter { get; } = retryAfter is { } pause && pause > TimeSpan.Zero ? (pause < LongestPause ? pause : LongestPause) : TimeSpan.Zero;

    /// <summary>The stable code of the problem details.</summary>
    public string Code { get; } = code;
}
