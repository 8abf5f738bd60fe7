using System.Text.Json;
using System.Threading.Channels;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Gate;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Spool;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>
/// Takes one QEMU's memory failures to the spool. A guest that hammers a poisoned page costs an append every quarter of a second at most:
/// what comes in between is added up, and so is what comes while the spool is full.
/// </summary>
public sealed partial class QemuEvidence(
    VmEntry entry, QemuLog? log, ReportSpool spool, GateKeeper gate, QemuMeter meter, TimeProvider time, ILogger logger)
{
    private static readonly TimeSpan Window = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(5);

    private readonly Lock _lock = new();
    private readonly Channel<bool> _signal = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private readonly List<QemuLogEntry> _lines = [];
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

        try
        {
            if (TryStore(failures))
            {
                return true;
            }
        }
        catch (IOException exception)
        {
            LogNotStored(exception, entry.Vm);
        }

        failures.ForEach(Add);
        return false;
    }

    private bool TryStore(List<QemuFailures> failures)
    {
        if (entry.Attachment is not { } attachment)
        {
            CountUnplaced(failures.Sum(failure => failure.Count));
            return true;
        }

        ReadLog();
        var (reports, unplaced) = QemuFailureReports.Build(
            failures, log is null ? null : _lines, attachment.Trapped, entry.Vm, attachment.MemoryInstance, entry.Desired?.PlacementEpoch);
        var poison = FrameSet.Of(reports.Where(report => report.Kind == AgentReport.Poison).Select(report => new PageKey(report.Frame, report.Shift!.Value)));
        if (!poison.IsEmpty)
        {
            gate.TakeReportedPoison(attachment, poison);
        }

        if (reports.Count > 0 && !spool.TryAppend(reports))
        {
            return false;
        }

        _lines.Clear();
        CountUnplaced(unplaced);
        return true;
    }

    private void ReadLog()
    {
        try
        {
            _lines.AddRange(log?.ReadNew() ?? []);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            LogNoLog(exception, entry.Vm);
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
