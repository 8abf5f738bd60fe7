namespace Fleet.TinyVmm.Migration;

/// <summary>A stream was refused or failed; the code is stable, and also that of the control operation.</summary>
internal sealed class StreamException(string code, string message) : Exception(message)
{
    public string Code { get; } = code;

    /// <summary>The bytes are no stream, or one of another version.</summary>
    public const string Malformed = "stream-malformed";

    /// <summary>The stream ended too early, or its checksum is another.</summary>
    public const string Torn = "stream-torn";
    public const string WrongVm = "stream-wrong-vm";
    public const string LayoutMismatch = "stream-layout-mismatch";
    public const string VcpuMismatch = "stream-vcpu-mismatch";
    public const string ProgramMismatch = "stream-program-mismatch";

    /// <summary>The target has its RAM already, or never waited for one.</summary>
    public const string AlreadyLoaded = "stream-already-loaded";

    /// <summary>The target is taking another stream.</summary>
    public const string Busy = "stream-busy";
    public const string TooManyUndelivered = "stream-too-many-undelivered";
    public const string Unreachable = "stream-unreachable";
    public const string TimedOut = "stream-timeout";

    /// <summary>An access to guest memory failed on either side, for another reason than poison.</summary>
    public const string Memory = "stream-memory";

    /// <summary>The code of a peer's answer; anything unknown is <see cref="Malformed"/>.</summary>
    public static string Known(string? code) =>
        code is Malformed or Torn or WrongVm or LayoutMismatch or VcpuMismatch or ProgramMismatch or AlreadyLoaded or Busy
            or TooManyUndelivered or TimedOut or Memory
            ? code
            : Malformed;
}
