using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Pages;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Spool;
using Fleet.Linux;
using Fleet.Linux.Tracing;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Detect;

/// <summary>
/// Finds the pages of attached VMMs that this host's kernel has poisoned: when the kernel tells of an error, when a VMM attaches, and at an
/// interval, because an event can be missed. Each becomes a poisoned page of the VM and a fault of the host.
/// </summary>
public sealed partial class DetectionService(
    VmTable table, DetectionQueue queue, MemoryFailureWatch watch, PoisonIntake intake, HostFaults faults, ReportSpool spool, CorrectedErrors corrected,
    TimeProvider time, ILogger<DetectionService> logger) : BackgroundService
{
    // The driver of the memory controller may locate the error a moment after the frame is out of use.
    private static readonly TimeSpan Window = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan Interval = TimeSpan.FromMinutes(5);
    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan CorrectedInterval = TimeSpan.FromMinutes(1);

    /// <summary>For tests, on kernels that cannot poison a page by themselves.</summary>
    internal Func<Attachment, IReadOnlyList<NativePage>> Find { get; set; } = NativePages.Find;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        try
        {
            // First, so that nothing falls between the look at each VMM when it is attached and the events.
            watch.Start();
            await table.WhenLoadedAsync().WaitAsync(stoppingToken);
            await Loops.RunAsync([WorkAsync, token => EveryAsync(Interval, queue.AddAll, token), CountCorrectedAsync], stoppingToken);
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // Stopping.
        }
    }

    private async Task WorkAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            var work = await queue.TakeAsync(cancellationToken);
            if (work.Errors.Count > 0)
            {
                await Task.Delay(Window, time, cancellationToken); // allowed: lets the memory controller's driver name the module
            }

            await UntilStoredAsync(() => LookAsync(work, cancellationToken), cancellationToken);
        }
    }

    // Until all of it is durable: what was stored already is known, and not stored twice.
    private async Task UntilStoredAsync(Func<Task<bool>> store, CancellationToken cancellationToken)
    {
        var complained = false;
        while (true)
        {
            var changed = spool.WhenChangedAsync();
            try
            {
                if (await store())
                {
                    return;
                }

                Complain(ref complained, null);
                await changed.WaitAsync(cancellationToken);
            }
            catch (IOException exception)
            {
                Complain(ref complained, exception);
                await Task.Delay(Retry, time, cancellationToken); // allowed: pace of retries on a failing disk
            }
#pragma warning disable CA1031 // A defect of one look must not end detection.
            catch (Exception exception) when (exception is not OperationCanceledException)
#pragma warning restore CA1031
            {
                if (!complained)
                {
                    LogDefect(exception);
                    complained = true;
                }

                await Task.Delay(Retry, time, cancellationToken); // allowed: pace of retries
            }
        }
    }

    private async Task<bool> LookAsync(DetectionWork work, CancellationToken cancellationToken)
    {
        var open = work.Errors.Select(error => (long)error.Frame).ToHashSet();
        foreach (var entry in table.All.Where(entry => work.Concerns(entry.Vm)))
        {
            await entry.Gate.WaitAsync(cancellationToken);
            try
            {
                if (entry.Attachment is { } attachment && !await Task.Run(() => Look(entry, attachment, open), cancellationToken))
                {
                    return false;
                }
            }
            finally
            {
                entry.Gate.Release();
            }
        }

        // Not a VM's memory; or one whose VMM has ended over it.
        List<HostFault> others = [.. open.Select(frame => new HostFault(frame, null))];
        var fresh = faults.New(others);
        if (fresh.Count > 0 && !spool.TryAppend([.. fresh.Select(faults.Report)]))
        {
            return false;
        }

        faults.Told(others);
        return true;
    }

    /// <param name="open">Frames that the kernel told of; those that are found here are taken out.</param>
    private bool Look(VmEntry entry, Attachment attachment, HashSet<long> open)
    {
        IReadOnlyList<NativePage> found;
        try
        {
            found = Find(attachment);
            if (open.Any(frame => !found.Any(page => page.MayBe(frame))))
            {
                found = [.. found, .. NativePages.FindUnmapped(attachment)];
            }
        }
        catch (LinuxException exception)
        {
            // It has ended, or is hidden: nothing can be said of it.
            LogNotLooked(entry.Vm, exception.Message);
            return true;
        }

        List<NativePage> located = [.. found.Select(page => Locate(page, found, open))];
        open.ExceptWith(located.Select(page => page.PhysicalFrame).OfType<long>());
        if (!intake.TryStore(entry, attachment, origin => Reports(entry, attachment, located, origin), [.. located.Select(page => PoisonIntake.Of(attachment, page))]))
        {
            return false;
        }

        return true;
    }

    // A huge page's entry does not name its frame; the kernel's event does, and which 4 KiB of the page it is must agree.
    private static NativePage Locate(NativePage page, IReadOnlyList<NativePage> found, HashSet<long> open)
    {
        if (page.PhysicalFrame is not null)
        {
            return page;
        }

        var may = open.Where(page.MayBe).ToList();
        return may.Count == 1 && found.Count(other => other.MayBe(may[0])) == 1 ? page with { PhysicalFrame = may[0] } : page;
    }

    private List<AgentReport> Reports(VmEntry entry, Attachment attachment, List<NativePage> found, string? origin)
    {
        // Not what is merely noted as reported, or as a hole: its report may not be in the spool.
        var known = FrameSet.Of(entry.Desired?.Pages ?? []).Union(attachment.Spooled);
        if (origin == PoisonOrigins.Sealed)
        {
            known = known.Union(attachment.ToldSealed);
        }

        var now = time.GetUtcNow();
        var fresh = found.Select(page => page.Page).Distinct().Where(page => !FrameSet.Of([page]).Except(known).IsEmpty).ToList();
        foreach (var page in fresh)
        {
            LogFound(entry.Vm, page.Frame, page.Shift, origin ?? "no barrier");
        }

        return
        [
            .. fresh.Select(page => new AgentReport(
                0, AgentReport.Poison, entry.Vm, attachment.MemoryInstance, page.Frame, page.Shift, PageClasses.Unknown, PageSources.MemoryFailure,
                null, now, now, 1, null, null, null, null, origin)),
        ];
    }

    private async Task EveryAsync(TimeSpan interval, Action action, CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(interval, time);
        while (await timer.WaitForNextTickAsync(cancellationToken))
        {
            action();
        }
    }

    private async Task CountCorrectedAsync(CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(CorrectedInterval, time);
        do
        {
            await UntilStoredAsync(() => Task.FromResult(corrected.TryReport()), cancellationToken);
        }
        while (await timer.WaitForNextTickAsync(cancellationToken));
    }

    private void Complain(ref bool complained, Exception? exception)
    {
        if (!complained)
        {
            LogStuck(exception);
            complained = true;
        }
    }

    [LoggerMessage(1911, LogLevel.Warning, "VM {Vm}: the page of frame {Frame}, shift {Shift}, is poisoned by this host's own memory ({Origin})")]
    private partial void LogFound(string vm, long frame, int shift, string origin);

    [LoggerMessage(1912, LogLevel.Information, "VM {Vm}: its page tables could not be looked at for memory errors: {Reason}")]
    private partial void LogNotLooked(string vm, string reason);

    [LoggerMessage(1913, LogLevel.Error, "The spool is full or cannot be written; memory errors that were found wait for room")]
    private partial void LogStuck(Exception? exception);

    [LoggerMessage(2304, LogLevel.Error, "Memory errors could not be looked for; it is tried again every 5 s, and nothing is told of it until it works")]
    private partial void LogDefect(Exception exception);
}
