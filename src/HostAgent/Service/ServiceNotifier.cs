using Fleet.Contracts.Vms;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Spool;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Service;

/// <summary>
/// Tells the service manager how the agent is: ready when the VMMs of earlier lives are taken over and every VM was looked at once; alive only
/// while the reconcile loop moves. A timer asks the loop for a turn, and the watchdog is fed for turns, never for the timer's own ticks.
/// </summary>
public sealed partial class ServiceNotifier(
    ServiceManager manager, ReconcileProgress progress, WorkSet work, VmTable table, Heartbeats heartbeats, ReportSpool spool,
    IHostApplicationLifetime lifetime, TimeProvider time, ILogger<ServiceNotifier> logger) : BackgroundService
{
    // A status for people only.
    private static readonly TimeSpan Unwatched = TimeSpan.FromSeconds(30);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (manager.NotifySocket is null)
        {
            return;
        }

        using var stopping = lifetime.ApplicationStopping.Register(() => manager.TryNotify("STOPPING=1\nSTATUS=Stopping; what is armed stays armed"));
        try
        {
            await progress.WhenLookedAsync().WaitAsync(stoppingToken);
            // Four in a period: a look at one VM may take most of it, and the next tick still comes in time.
            using var timer = new PeriodicTimer(manager.Watchdog / 4 ?? Unwatched, time);
            if (!manager.TryNotify($"READY=1\nSTATUS={Status()}"))
            {
                LogNotTold(manager.NotifySocket);
            }

            await FollowAsync(timer, stoppingToken);
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // Stopping, which was said above.
        }
    }

    private async Task FollowAsync(PeriodicTimer timer, CancellationToken cancellationToken)
    {
        var seen = progress.Turns;
        work.Poke();
        while (await timer.WaitForNextTickAsync(cancellationToken))
        {
            var turns = progress.Turns;
            var isStuck = turns == seen;
            seen = turns;
            manager.TryNotify(isStuck ? "STATUS=The reconcile loop does not move; what is armed stays armed"
                : manager.Watchdog is null ? $"STATUS={Status()}"
                : $"WATCHDOG=1\nSTATUS={Status()}");
            work.Poke();
        }
    }

    private string Status()
    {
        var states = table.All.Select(entry => entry.Status?.State).OfType<string>().ToList();
        var armed = states.Count(state => state == EnforcementStates.Armed);
        var failed = states.Count(state => state == EnforcementStates.Failed);
        return FormattableString.Invariant(
            $"{states.Count} VMs: {armed} armed, {failed} failed; control plane {(heartbeats.Connected ? "connected" : "not connected")}; {spool.Count} reports wait");
    }

    [LoggerMessage(2251, LogLevel.Warning, "The service manager cannot be told that the agent is ready: nobody listens on NOTIFY_SOCKET {Socket}")]
    private partial void LogNotTold(string socket);
}
