using System.Net;
using Fleet.Contracts.Agents;
using Fleet.HostAgent.Gate;
using Fleet.HostAgent.Metrics;
using Fleet.HostAgent.Spool;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>Sends the spool's head, in order, and removes what the control plane has made durable.</summary>
public sealed partial class ReportSender(ControlPlaneClient client, ReportSpool spool, GateOutbox outbox, TimeProvider time, ILogger<ReportSender> logger)
{
    private readonly LogPace _refusals = new(time);
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
        catch (ControlPlaneException exception) when (exception.Status == HttpStatusCode.BadRequest)
        {
            // A defect of one of the two. Nothing is skipped: what would be lost may be a seal, and a control plane that is mended takes it.
            AgentMeter.ReportRequestsRefused.Add(1);
            if (_refusals.MayTell(exception.Code) is { } silent)
            {
                LogMalformed(exception.Message, request.Reports.Count, request.Reports.Count > 0 ? request.Reports[0].Sequence : 0, silent);
            }

            throw;
        }
        finally
        {
            if (!told && request.Obstacles is not null)
            {
                outbox.TellObstaclesAgain();
            }
        }
    }

    [LoggerMessage(2300, LogLevel.Error, "The control plane refuses a request of {Count} reports, the first of sequence {Sequence}, as malformed ({Problem}). It is sent again, and until it is taken NO REPORT OF THIS HOST ARRIVES; what is armed stays armed. Agent or control plane has a defect: update them (and {Silent} more like it before)")]
    private partial void LogMalformed(string problem, int count, long sequence, long silent);

    [LoggerMessage(1621, LogLevel.Warning, "The control plane refused report {Sequence} for good: {Code}")]
    private partial void LogRejected(long sequence, string code);
}
