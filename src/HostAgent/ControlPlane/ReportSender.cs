using Fleet.Contracts.Agents;
using Fleet.HostAgent.Gate;
using Fleet.HostAgent.Metrics;
using Fleet.HostAgent.Spool;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>Sends the spool's head, in order, and removes what the control plane has made durable.</summary>
public sealed partial class ReportSender(ControlPlaneClient client, ReportSpool spool, GateOutbox outbox, ILogger<ReportSender> logger)
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

            await SendAsync(new ReportsRequest(incarnation, spool.SpoolId, reports, acks, obstacles), cancellationToken);
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
                AgentMeter.ReportsDropped.Add(1, AgentMeter.Label("why", "refused"));
                LogRejected(rejected.Sequence, rejected.Code);
            }

            told = true;
            spool.Acknowledge(result.Applied);
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
}
