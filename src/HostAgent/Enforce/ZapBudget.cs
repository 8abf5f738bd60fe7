namespace Fleet.HostAgent.Enforce;

/// <summary>
/// How long one look at a VM may wait for its VMM to zap, over all lines, tries and regions: other VMs wait meanwhile. What is left when it is
/// used up is tried again at the next look.
/// </summary>
public sealed class ZapBudget(TimeProvider time)
{
    private static readonly TimeSpan Whole = TimeSpan.FromSeconds(5);

    private readonly long _started = time.GetTimestamp();

    /// <summary>Zero or less when it is used up.</summary>
    public TimeSpan Left => Whole - time.GetElapsedTime(_started);
}
