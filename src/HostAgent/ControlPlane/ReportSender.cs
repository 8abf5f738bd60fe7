using Fleet.Contracts.Agents;
using Fleet.HostAgent.Gate;
using Fleet.HostAgent.Restore;
using Fleet.HostAgent.Spool;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>Sends the spool's head, in order, and removes what the control plane has made durable.</summary>
public sealed partial class ReportSender(ControlPlaneClient client, ReportSpool spool, GateOutbox outbox, StorePromise promise, ILogger<ReportSender> logger)
{
    private const int MostPerRequest = 1000;

    /// <summary>Runs until a call fails.</summary>
    public async Task RunAsync(long incarnation, CancellationToken cancellationToken)
    {
        while (true)
        {
            var changed = Task.WhenAny(spool.WhenChangedAsync(), outbox.WhenChangedAsync());
            var reports = spool.Peek(MostPerRequest);
            // An acknowledgement goes out only behind every report made before it.
            var (acks, obstacles) = reports.Count < MostPerRequest ? outbox.Take() : ([], null);
            if (reports.Count + acks.Count == 0 && obstacles is null)
            {
                await changed.WaitAsync(cancellationToken);
                continue;
            }

            await SendAsync(new ReportsRequest(incarnation, spool.SpoolId, reports, acks, obstacles, promise.Revision), cancellationToken);
        }
    }

    private async Task SendAsync(ReportsRequest request, CancellationToken cancellationToken)
    {
        var told = false;
        try
        {
            var result = await client.ReportAsync(request, cancellationToken);
            foreach (var rejected in result.Rejected)
            {
                LogRejected(rejected.Sequence, rejected.Code);
            }

            told = true;
            if (request.Reports.Count > 0)
            {
                promise.Saw(result.Revision);
            }

            spool.Acknowledge(result.Applied);
        }
        catch (ControlPlaneException exception) when (exception.Code == ControlPlaneException.SpoolGap)
        {
            // It has no memory of this spool up to here (restored from a backup): none of these was ever applied.
            LogGap(exception.Message);
            spool.StartOver();
        }
        finally
        {
            if (!told && request.Obstacles is not null)
            {
                outbox.TellObstaclesAgain();
            }
        }
    }

    [LoggerMessage(1621, LogLevel.Warning, "The control plane refused report {Sequence} for good: {Code}")]
    private partial void LogRejected(long sequence, string code);

    [LoggerMessage(1622, LogLevel.Warning, "The control plane lost its place in this spool ({Problem}); what waits is sent under a new spool id")]
    private partial void LogGap(string problem);
}
