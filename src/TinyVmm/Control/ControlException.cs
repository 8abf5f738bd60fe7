namespace Fleet.TinyVmm.Control;

/// <summary>A request was refused or failed; the code is stable.</summary>
public sealed class ControlException(string code, string message) : Exception(message)
{
    public string Code { get; } = code;

    public const string BadJson = "bad-json";
    public const string UnknownOp = "unknown-op";
    public const string BadRequest = "bad-request";
    public const string OutOfRange = "out-of-range";
    public const string Reserved = "reserved";
    public const string Paused = "paused";
    public const string Failed = "failed";
    public const string TimedOut = "timeout";
    public const string HostError = "host-error";

    /// <summary>The barrier is closed: only the agent opens it.</summary>
    public const string Held = "held";

    /// <summary>RAM is being streamed out.</summary>
    public const string Migrating = "migrating";
}
