using Fleet.HostAgent.Attach;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Metrics;
using Fleet.HostAgent.Options;
using Fleet.Linux;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Reconcile;

/// <summary>
/// The agent's main loop. It needs no control plane: at start it loads the last known state and takes the VMMs over again,
/// then looks at every VM when something changed and at an interval.
/// </summary>
public sealed partial class ReconcileService(
    VmTable table, DesiredState desired, Takeover takeover, VmReconciler reconciler, WorkSet work, ReconcileProgress progress, StatusSignal status,
    LossReports losses, IOptions<AgentOptions> options, TimeProvider time, ILogger<ReconcileService> logger) : BackgroundService
{
    private readonly LogPace _defects = new(time);

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        foreach (var entry in table.All)
        {
            await entry.Gate.WaitAsync(cancellationToken);
            try
            {
                if (entry.Attachment is { } attachment)
                {
                    losses.Tell(entry, attachment, all: true);
                }
            }
            finally
            {
                entry.Gate.Release();
            }
        }
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        SayWhatIsMissing();
        desired.Load();
        await takeover.RunAsync(stoppingToken);
        table.Loaded();
        try
        {
            await LookAtAllAsync(stoppingToken);
            await Loops.RunAsync([WorkAsync, VerifyAsync, WatchAsync], stoppingToken);
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // Stopping: what is armed stays armed.
        }
    }

    // Nothing is armed "as well as possible": where the kernel or a right is missing, it stands in the log and in every status.
    private void SayWhatIsMissing()
    {
        if (!Environment.IsPrivilegedProcess)
        {
            LogNotRoot();
        }

        var marker = CapabilityProbe.Table().GetValueOrDefault(CapabilityProbe.MarkerOnMemfd, "no: userfaultfd does not work");
        if (marker != "yes")
        {
            LogCannotArm(marker);
        }
    }

    // Before the agent calls itself ready: what was taken over is verified once, whatever comes of it.
    private async Task LookAtAllAsync(CancellationToken cancellationToken)
    {
        foreach (var entry in table.All)
        {
            await ReconcileAsync(entry.Vm, cancellationToken);
            progress.Turn();
        }

        progress.Looked();
    }

    private async Task WorkAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            foreach (var vm in await work.TakeAsync(cancellationToken))
            {
                await ReconcileAsync(vm, cancellationToken);
                progress.Turn();
            }

            progress.Turn();
        }
    }

    private async Task ReconcileAsync(string vm, CancellationToken cancellationToken)
    {
        if (table.Find(vm) is not { } entry)
        {
            return;
        }

        await entry.Gate.WaitAsync(cancellationToken);
        try
        {
            var (before, started) = (entry.Status, time.GetTimestamp());
            // On a thread of its own: system calls on a large set take milliseconds, and a hung VMM's longer.
            await Task.Run(() => reconciler.Reconcile(entry), cancellationToken);
            entry.StatusAt = time.GetTimestamp();
            AgentMeter.Reconcile.Record(time.GetElapsedTime(started, entry.StatusAt).TotalSeconds);
            if (before != entry.Status)
            {
                status.Set();
            }
        }
#pragma warning disable CA1031 // One VM's defect must not end the enforcement of the others.
        catch (Exception exception) when (exception is not OperationCanceledException)
#pragma warning restore CA1031
        {
            AgentMeter.ReconcileDefects.Add(1);
            if (_defects.MayTell(vm) is { } silent)
            {
                LogDefect(exception, vm, silent);
            }
        }
        finally
        {
            entry.Gate.Release();
        }
    }

    // Armed pages are verified again at an interval: a VMM, or whoever maps its memory, can lose a marker.
    private async Task VerifyAsync(CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromSeconds(options.Value.VerifySeconds), time);
        while (await timer.WaitForNextTickAsync(cancellationToken))
        {
            foreach (var entry in table.All)
            {
                work.Add(entry.Vm);
            }
        }
    }

    private async Task WatchAsync(CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromSeconds(1), time);
        while (await timer.WaitForNextTickAsync(cancellationToken))
        {
            foreach (var entry in table.All.Where(IsDue))
            {
                work.Add(entry.Vm);
            }
        }
    }

    // While a migration is under way acknowledgements are repeated, and a VMM that ended is noticed at once. Accesses that could not be answered are
    // looked after now, and not sooner, because they may fail again.
    private static bool IsDue(VmEntry entry) =>
        HasEnded(entry)
        || (entry.Attachment is { } attachment && (attachment.TakeLook() || attachment.Unanswered.Any))
        || entry.Desired is { Migration: not null } or { ResetWanted: true };

    private static bool HasEnded(VmEntry entry)
    {
        try
        {
            return entry.Attachment?.Process.HasExited() == true;
        }
        catch (Exception exception) when (exception is ObjectDisposedException or LinuxException)
        {
            // Replaced in this moment, or the kernel could not say: it is asked again in a second.
            return false;
        }
    }

    [LoggerMessage(1112, LogLevel.Error, "The agent does not run as root: it cannot borrow the descriptors of VMMs (CAP_SYS_PTRACE) nor verify their page tables (CAP_SYS_ADMIN)")]
    private partial void LogNotRoot();

    [LoggerMessage(1113, LogLevel.Error, "This host cannot arm poisoned pages ({Capability}); the control plane is told so")]
    private partial void LogCannotArm(string capability);

    [LoggerMessage(1111, LogLevel.Error, "VM {Vm} could not be looked at; it is tried again (and {Silent} tries more before)")]
    private partial void LogDefect(Exception exception, string vm, long silent);
}
