using Fleet.Contracts.Agents;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Metrics;
using Fleet.HostAgent.Spool;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Reconcile;

/// <summary>
/// Tells of markers that had been confirmed and were gone at the next look: in between the guest may have read zeros there. The first loss of a VM is told
/// at once; more of them within a minute are one line and one report, because a VMM that maps its memory anew without end loses them
/// several times a second. Call with the entry's gate held.
/// </summary>
public sealed partial class LossReports(ReportSpool spool, TimeProvider time, ILogger<LossReports> logger)
{
    private static readonly TimeSpan Interval = TimeSpan.FromMinutes(1);

    /// <summary>Adds what a look found gone.</summary>
    public void Add(VmEntry entry, Attachment attachment, FrameSet lost)
    {
        if (lost.IsEmpty)
        {
            return;
        }

        AgentMeter.MarkersLost.Add(lost.Frames);
        var now = time.GetUtcNow();
        // The look that confirmed them is the one of the status, which is still the former.
        attachment.Loss = attachment.Loss?.With(lost, now) ?? new MarkerLoss(lost, lost.Frames, now - time.GetElapsedTime(entry.StatusAt), now);
    }

    /// <summary>Stores what is to be told by now.</summary>
    /// <param name="all">Whatever there is: the VMM has ended, or the agent ends.</param>
    public void Tell(VmEntry entry, Attachment attachment, bool all = false)
    {
        if (attachment.Loss is not { } loss || (!all && attachment.LossToldAt is { } told && time.GetElapsedTime(told) < Interval))
        {
            return;
        }

        if (!TryStore(loss.ToReport(entry.Vm, attachment.MemoryInstance, entry.PlacementEpoch ?? 0)))
        {
            // It is told with the next, where there is one.
            if (all)
            {
                AgentMeter.ReportsDropped.Add(1, AgentMeter.Label("why", "stopped"));
                LogLost(entry.Vm, loss.Count, loss.Frames.Ranges[0].Start);
            }

            return;
        }

        LogMarkerLost(entry.Vm, loss.Count, loss.Frames.Ranges[0].Start, loss.ConfirmedAt, loss.FoundAt);
        (attachment.Loss, attachment.LossToldAt) = (null, time.GetTimestamp());
    }

    private bool TryStore(AgentReport report)
    {
        try
        {
            return spool.TryAppend([report]);
        }
        catch (IOException)
        {
            // Whoever has more to store says so.
            return false;
        }
    }

    [LoggerMessage(2308, LogLevel.Error, "VM {Vm}: the report of {Frames} lost markers, the first of frame {First}, IS LOST: the spool took none until the end")]
    private partial void LogLost(string vm, long frames, long first);

    [LoggerMessage(1103, LogLevel.Warning,
        "marker-lost: {Frames} frames of VM {Vm}, the first {First}, carried a poison marker at {Confirmed:O} and did not any more at {Found:O}. They were armed again; in between the guest may have read zeros there")]
    private partial void LogMarkerLost(string vm, long frames, long first, DateTimeOffset confirmed, DateTimeOffset found);
}
