using System.Text.Json;
using System.Threading.Channels;
using Fleet.Contracts;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Metrics;
using Fleet.HostAgent.Observe;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Spool;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>
/// Takes one VM's memory failures, as its QEMU tells them, to the spool. A guest that hammers a poisoned page costs an append every quarter of a
/// second at most: what comes in between is added up, and so is what comes while the spool is full. It outlives connections and QEMU processes:
/// QEMU keeps nothing, so what waits for room waits here.
/// </summary>
public sealed partial class QemuEvidence(
    VmEntry entry, ReportSpool spool, HeldBack held, PoisonIntake intake, AccessObserver observer, QemuMeter meter, TimeProvider time, ILogger logger)
{
    private static readonly TimeSpan Window = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(5);

    private readonly Lock _lock = new();
    private readonly Channel<bool> _signal = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private readonly Dictionary<(Attachment? Of, string Action), QemuFailures> _failures = [];
    private readonly LogPace _pace = new(time);

    // Found, and not yet in the spool; changed with the entry's gate held, as is the log.
    private readonly List<QemuFound> _found = [];
    private QemuLog? _log;
    private bool _isHeld;

    /// <summary>Takes the event MEMORY_FAILURE; all of them, action required or not (FACTS 4).</summary>
    public void Post(QmpLine failure)
    {
        var data = failure.Data?.Deserialize(QmpJson.Default.QmpMemoryFailure);
        var now = time.GetUtcNow();
        Add(entry.Attachment, new QemuFailures(data?.Action is "inject" or "fatal" or "reset" ? data.Action : "ignore", 1, now, now));
        _signal.Writer.TryWrite(true);
    }

    /// <summary>A connection begins, or ends (<paramref name="log"/> null): what was told until now belongs to the log until now.</summary>
    public async Task FollowAsync(QemuLog? log)
    {
        await entry.Gate.WaitAsync(CancellationToken.None);
        try
        {
            TakeIn();
            _log = log;
        }
        finally
        {
            entry.Gate.Release();
            _signal.Writer.TryWrite(true);
        }
    }

    /// <summary>Ends when it is cancelled: the agent stops, or the VM no longer concerns this host.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        try
        {
            while (await _signal.Reader.WaitToReadAsync(cancellationToken))
            {
                _signal.Reader.TryRead(out _);
                await Task.Delay(Window, time, cancellationToken); // allowed: the coalescing window, not a wait for something
                await StoreAsync(cancellationToken);
            }
        }
        catch (OperationCanceledException)
        {
            // What is here is still stored, if there is room.
            await StoreLastAsync();
        }
    }

    private async Task StoreLastAsync()
    {
        await entry.Gate.WaitAsync(CancellationToken.None);
        try
        {
            if (!TryStore())
            {
                var left = _found.Sum(found => found.Hits.Count + found.Poison.Count);
                AgentMeter.ReportsDropped.Add(left, AgentMeter.Label("why", "stopped"));
                LogLost(entry.Vm, left);
            }
        }
        finally
        {
            entry.Gate.Release();
            Hold(false, null);
        }
    }

    private async Task StoreAsync(CancellationToken cancellationToken)
    {
        var changed = spool.WhenChangedAsync();
        await entry.Gate.WaitAsync(cancellationToken);
        try
        {
            if (TryStore())
            {
                return;
            }
        }
        finally
        {
            entry.Gate.Release();
        }

        // Full, or the disk fails: the counts stay here, and it is tried again with what comes meanwhile.
        await Task.WhenAny(changed, Task.Delay(Retry, time, cancellationToken)); // allowed: pace of retries on a full or failing disk
        _signal.Writer.TryWrite(true);
    }

    private bool TryStore()
    {
        Exception? problem = null;
        try
        {
            TakeIn();
            _found.RemoveAll(TryStore);
        }
#pragma warning disable CA1031 // A defect must not end it: it is the only place where these are.
        catch (Exception exception)
#pragma warning restore CA1031
        {
            problem = exception;
            if (exception is not IOException && _pace.MayTell(entry.Vm, "defect") is { } silent)
            {
                LogDefect(exception, entry.Vm, silent);
            }
        }

        Hold(_found.Count > 0, problem);
        return _found.Count == 0;
    }

    private bool TryStore(QemuFound found)
    {
        if (!ReferenceEquals(entry.Attachment, found.Of))
        {
            // That process has ended: nothing of it is journalled any more, nor can its page tables be asked.
            return spool.TryAppend(found.Reports(entry, null));
        }

        var behind = PoisonIntake.Behind(found.Of, found.Poison.Select(report => new PageKey(report.Frame, report.Shift!.Value)));
        return intake.TryStore(entry, found.Of, origin => found.Reports(entry, origin), behind);
    }

    private void TakeIn()
    {
        ILookup<Attachment?, QemuFailures> told;
        lock (_lock)
        {
            told = _failures.ToLookup(failure => failure.Key.Of, failure => failure.Value);
            _failures.Clear();
        }

        foreach (var failures in told)
        {
            if (failures.Key is { } attachment)
            {
                Find(attachment, [.. failures]);
            }
            else
            {
                CountUnplaced(failures.Sum(failure => failure.Count));
            }
        }
    }

    private void Find(Attachment attachment, List<QemuFailures> failures)
    {
        List<QemuLogEntry>? lines = _log is null ? null : ReadLog(_log);
        var findings = QemuFailureReports.Build(failures, lines, attachment.Trapped, entry.Vm, attachment.MemoryInstance);
        CountUnplaced(findings.Unplaced);
        if (findings.Hits.Count + findings.Poison.Count == 0)
        {
            return;
        }

        var found = _found.Find(other => ReferenceEquals(other.Of, attachment));
        if (found is null)
        {
            _found.Add(found = new QemuFound(attachment));
        }

        // A page that failed is told once, however long it waits.
        found.Poison.AddRange(findings.Poison.Where(page => !found.Poison.Exists(other => other.Frame == page.Frame)));

        // What the kernel showed of these accesses was recorded before QEMU could speak of them. Once: what is explained is used up.
        observer.Drain();
        foreach (var hit in findings.Hits.SelectMany(said => observer.Merge.Explain(attachment, said)))
        {
            found.Add(hit);
        }

        if (found.Hits.Count + found.Poison.Count == 0)
        {
            _found.Remove(found);
        }
    }

    private List<QemuLogEntry> ReadLog(QemuLog from)
    {
        try
        {
            return [.. from.ReadNew()];
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            if (_pace.MayTell(entry.Vm, "log") is { } silent)
            {
                LogNoLog(entry.Vm, exception.Message, silent);
            }

            return [];
        }
    }

    private void CountUnplaced(long count)
    {
        if (count > 0)
        {
            meter.Unplaced(count);
            if (_pace.MayTell(entry.Vm, "unplaced", count) is { } silent)
            {
                LogUnplaced(entry.Vm, count + silent);
            }
        }
    }

    private void Hold(bool isHeld, Exception? problem)
    {
        if (isHeld == _isHeld)
        {
            return;
        }

        _isHeld = isHeld;
        if (isHeld)
        {
            held.Begin(entry.Vm, problem);
        }
        else
        {
            held.End();
        }
    }

    private void Add(Attachment? of, QemuFailures failures)
    {
        lock (_lock)
        {
            _failures[(of, failures.Action)] = _failures.TryGetValue((of, failures.Action), out var before)
                ? before with { Count = before.Count + failures.Count, FirstAt = before.FirstAt < failures.FirstAt ? before.FirstAt : failures.FirstAt, LastAt = before.LastAt > failures.LastAt ? before.LastAt : failures.LastAt }
                : failures;
        }
    }

    [LoggerMessage(2120, LogLevel.Warning, "VM {Vm}: QEMU told of {Count} memory failures without an address since this was last said; which of the poisoned pages it was is not known from QEMU")]
    private partial void LogUnplaced(string vm, long count);

    [LoggerMessage(2122, LogLevel.Warning, "VM {Vm}: QEMU's log cannot be read: {Problem} (and {Silent} times more before)")]
    private partial void LogNoLog(string vm, string problem, long silent);

    [LoggerMessage(2305, LogLevel.Error, "VM {Vm}: {Count} reports of memory failures that QEMU told ARE LOST: the spool took none until the end")]
    private partial void LogLost(string vm, int count);

    [LoggerMessage(2306, LogLevel.Error, "VM {Vm}: what QEMU told of memory failures cannot be taken in; it is kept and tried again (and {Silent} times more before)")]
    private partial void LogDefect(Exception exception, string vm, long silent);
}
