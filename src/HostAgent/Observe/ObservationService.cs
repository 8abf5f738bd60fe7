using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Metrics;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Spool;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Observe;

/// <summary>Stores the accesses that no VMM spoke of, and says how many could not be stored (I8).</summary>
public sealed partial class ObservationService(
    AccessObserver observer, VmTable table, ReportSpool spool, TimeProvider time, ILogger<ObservationService> logger) : BackgroundService
{
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    private readonly LogPace _pace = new(time);
    private long _dropped;

    public override async Task StartAsync(CancellationToken cancellationToken)
    {
        // Before the first VMM is attached.
        observer.Start();
        await base.StartAsync(cancellationToken);
    }

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        observer.Drain();
        var left = Store(all: true);
        if (left > 0)
        {
            AgentMeter.ReportsDropped.Add(left, AgentMeter.Label("why", "stopped"));
            LogLost(left);
        }

        SayWhatWasDropped(atLast: true);
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Interval, time);
        try
        {
            while (await timer.WaitForNextTickAsync(stoppingToken))
            {
                observer.Refresh();
                Store(all: false);
                SayWhatWasDropped();
            }
        }
        catch (OperationCanceledException)
        {
            // Stopping.
        }
    }

    /// <returns>How many could not be stored.</returns>
    private int Store(bool all)
    {
        var left = 0;
        foreach (var vmm in observer.Merge.TakeUnexplained(all).GroupBy(item => item.Vmm, item => item.Access))
        {
            if (!TryStore(vmm.Key, [.. vmm]))
            {
                foreach (var access in vmm)
                {
                    observer.Merge.PutBack(vmm.Key, access);
                    left++;
                }
            }
        }

        return left;
    }

    private bool TryStore(Attachment vmm, IReadOnlyList<ObservedAccess> accesses)
    {
        try
        {
            var epoch = table.Find(vmm.Vm)?.PlacementEpoch ?? 0;
            return spool.TryAppend([.. accesses.Select(access => access.ToReport(vmm.Vm, vmm.MemoryInstance, epoch))]);
        }
        catch (IOException exception)
        {
            if (_pace.MayTell("stuck") is { } silent)
            {
                LogStuck(vmm.Vm, exception.Message, silent);
            }

            return false;
        }
    }

    private void SayWhatWasDropped(bool atLast = false)
    {
        var dropped = observer.Dropped;
        if (dropped > _dropped && (_pace.MayTell("dropped") is not null || atLast))
        {
            LogDropped(dropped - _dropped, dropped);
            _dropped = dropped;
        }
    }

    [LoggerMessage(1931, LogLevel.Error, "The spool cannot be written ({Problem}); accesses of VM {Vm}, and of any other, wait (and {Silent} tries more before)")]
    private partial void LogStuck(string vm, string problem, long silent);

    [LoggerMessage(2307, LogLevel.Error, "{Count} reports of accesses to poisoned pages ARE LOST: the spool took none until the agent ended")]
    private partial void LogLost(int count);

    [LoggerMessage(1932, LogLevel.Warning, "{Count} accesses to poisoned pages were counted and not stored one by one: {Total} since the start")]
    private partial void LogDropped(long count, long total);
}
