namespace Fleet.TinyVmm.Migration;

/// <summary>How long a stream may take. Its size is bounded by the guest's RAM.</summary>
/// <param name="Idle">For each transfer, and for each access to guest memory (which blocks on a trapped page).</param>
/// <param name="Total">For all of it.</param>
public sealed record StreamLimits(TimeSpan Idle, TimeSpan Total)
{
    public static readonly StreamLimits Default = new(TimeSpan.FromSeconds(30), TimeSpan.FromMinutes(10));

    /// <summary>Most ranges of undelivered frames: the handoff's line must hold them too.</summary>
    public const int MaximumUndeliveredRanges = 16384;

    /// <summary>Longest text taken from a peer's answer.</summary>
    public const int MaximumText = 256;
}
