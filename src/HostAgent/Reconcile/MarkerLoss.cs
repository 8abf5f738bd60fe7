using Fleet.Contracts.Agents;
using Fleet.HostAgent.Enforce;

namespace Fleet.HostAgent.Reconcile;

/// <summary>Markers that were lost and not yet told of.</summary>
/// <param name="Count">Frames, each as often as it was lost.</param>
/// <param name="ConfirmedAt">The last look that still saw those of the first loss.</param>
/// <param name="FoundAt">The look that missed those of the last.</param>
public sealed record MarkerLoss(FrameSet Frames, long Count, DateTimeOffset ConfirmedAt, DateTimeOffset FoundAt)
{
    public MarkerLoss With(FrameSet lost, DateTimeOffset now) => new(Frames.Union(lost), Count + lost.Frames, ConfirmedAt, now);

    public AgentReport ToReport(string vm, long memoryInstance, long placementEpoch) => new(
        0, AgentReport.MarkerLost, vm, memoryInstance, Frames.Ranges[0].Start, null, null, null, placementEpoch, ConfirmedAt, FoundAt, Count, null, null, null, null);
}
