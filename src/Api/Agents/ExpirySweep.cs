using Fleet.Api.Startup;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Agents;

/// <summary>Lets silent hosts expire, once a second. In memory alone, so that no disk that hangs can keep a host online.</summary>
public sealed class ExpirySweep(StatusBoard board, IOptions<FleetOptions> options, TimeProvider time, ILogger<ExpirySweep> logger) : BackgroundService
{
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(1);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Period, time);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            var swept = board.SweepExpired();
            if (swept.Began)
            {
                AgentLog.ExpiryBraked(logger, swept.Silent, swept.Online, options.Value.ExpiryBrakeLimit.TotalSeconds);
            }
            else if (swept.Released)
            {
                AgentLog.BrakeReleased(logger, swept.Silent);
            }
        }
    }
}
