using System.Text.Json;
using System.Threading.Channels;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Observe;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Spool;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>
/// Takes one QEMU's memory failures to the spool. A guest that hammers a poisoned page costs an append every quarter of a second at most:
/// what comes in between is added up, and so is what comes while the spool is full.
/// </summary>
public sealed partial class QemuEvidence(
    VmEntry entry, QemuLog? log, ReportSpool spool, PoisonIntake intake, AccessObserver observer, QemuMeter meter, TimeProvider time, ILogger logger)
{
    private static readonly TimeSpan Window = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(5);

    private readonly Lock _lock = new();
    private readonly Channel<bool> _signal = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    // Found, and not yet in the spool.
    private readonly List<ObservedAccess> _hits = [];
    private readonly List<AgentReport> _poison = [];
    private readonly Dictionary<string, QemuFailures> _failures = new(StringComparer.Ordinal);

    /// <summary>Takes the event MEMORY_FAILURE; all of them, action required or not (FACTS 4).</summary>
    public void Post(QmpLine failure)
    {
        var data = failure.Data?.Deserialize(QmpJson.Default.QmpMemoryFailure);
        var now = time.GetUtcNow();
        Add(new QemuFailures(data?.Action is "inject" or "fatal" or "reset" ? data.Action : "ignore", 1, now, now));
        _signal.Writer.TryWrite(true);
    }

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
            // The connection ended: what is here is still stored, if there is room.
            await entry.Gate.WaitAsync(CancellationToken.None);
            try
            {
                TryStore();
            }
            finally
            {
                entry.Gate.Release();
            }
        }
    }

    private async Task StoreAsync(CancellationToken cancellationToken)
    {
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
        await Task.WhenAny(spool.WhenChangedAsync(), Task.Delay(Retry, time, cancellationToken)); // allowed: pace of retries on a full or failing disk
        _signal.Writer.TryWrite(true);
    }

    private bool TryStore()
    {
        List<QemuFailures> failures;
        lock (_lock)
        {
            failures = [.. _failures.Values];
            _failures.Clear();
        }

        if (entry.Attachment is not { } attachment)
        {
            CountUnplaced(failures.Sum(failure => failure.Count));
            return true;
        }

        Find(attachment, failures);
        if (_hits.Count + _poison.Count == 0)
        {
            return true;
        }

        try
        {
            var found = PoisonIntake.Behind(attachment, _poison.Select(report => new PageKey(report.Frame, report.Shift!.Value)));
            if (intake.TryStore(entry, attachment, origin => Reports(attachment, origin), found))
            {
                _hits.Clear();
                _poison.Clear();
                return true;
            }
        }
        catch (IOException exception)
        {
            LogNotStored(exception, entry.Vm);
        }

        return false;
    }

    private void Find(Attachment attachment, List<QemuFailures> failures)
    {
        List<QemuLogEntry>? lines = log is null ? null : ReadLog(log);
        var findings = QemuFailureReports.Build(failures, lines, attachment.Trapped, entry.Vm, attachment.MemoryInstance);
        _poison.AddRange(findings.Poison);
        CountUnplaced(findings.Unplaced);

        // What the kernel showed of these accesses was recorded before QEMU could speak of them. Once: what is explained is used up.
        observer.Drain();
        foreach (var hit in findings.Hits.SelectMany(said => observer.Merge.Explain(attachment, said)))
        {
            var at = _hits.FindIndex(other => other with { Count = 0, FirstAt = default, LastAt = default } == hit with { Count = 0, FirstAt = default, LastAt = default });
            if (at < 0)
            {
                _hits.Add(hit);
            }
            else
            {
                _hits[at] = _hits[at] with { Count = _hits[at].Count + hit.Count, LastAt = hit.LastAt };
            }
        }
    }

    private IReadOnlyList<AgentReport> Reports(Attachment attachment, string? origin) =>
    [
        .. _poison.Select(report => report with { Origin = origin }),
        .. _hits.Select(hit => hit.ToReport(entry.Vm, attachment.MemoryInstance, entry.PlacementEpoch ?? 0)),
    ];

    private List<QemuLogEntry> ReadLog(QemuLog from)
    {
        try
        {
            return [.. from.ReadNew()];
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            LogNoLog(exception, entry.Vm);
            return [];
        }
    }

    private void CountUnplaced(long count)
    {
        if (count > 0)
        {
            meter.Unplaced(count);
            LogUnplaced(entry.Vm, count);
        }
    }

    private void Add(QemuFailures failures)
    {
        lock (_lock)
        {
            _failures[failures.Action] = _failures.TryGetValue(failures.Action, out var before)
                ? before with { Count = before.Count + failures.Count, FirstAt = before.FirstAt < failures.FirstAt ? before.FirstAt : failures.FirstAt, LastAt = before.LastAt > failures.LastAt ? before.LastAt : failures.LastAt }
                : failures;
        }
    }

    [LoggerMessage(2120, LogLevel.Warning, "VM {Vm}: QEMU told of {Count} memory failures without an address; which of the poisoned pages it was is not known from QEMU")]
    private partial void LogUnplaced(string vm, long count);

    [LoggerMessage(2121, LogLevel.Error, "VM {Vm}: memory failures that QEMU told cannot be written to the spool; they are counted until they can")]
    private partial void LogNotStored(Exception exception, string vm);

    [LoggerMessage(2122, LogLevel.Warning, "VM {Vm}: QEMU's log cannot be read")]
    private partial void LogNoLog(Exception exception, string vm);
}
