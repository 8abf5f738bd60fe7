using System.Security.Cryptography;
using Fleet.Contracts.Agents;
using Fleet.HostAgent.Metrics;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.State;
using Fleet.Linux.Processes;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Spool;

/// <summary>
/// The bounded queue of reports on disk. A report gets its identity (spool id, sequence) here and is durable before the VMM is
/// told so; it leaves when the control plane says that it is durable there (I2, I5).
/// </summary>
public sealed partial class ReportSpool
{
    private readonly Lock _lock = new();
    private readonly SpoolFile _file;
    private readonly long _maximumBytes;
    private readonly ILogger<ReportSpool> _logger;
    private readonly Queue<AgentReport> _waiting = [];
    private readonly Dictionary<ProcessIdentity, long> _watermarks = [];
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private long _next = 1;
    // Something left since the file was last written whole: doing that again makes room.
    private bool _mayShrink = true;

    public ReportSpool(StateFolder folder, IOptions<AgentOptions> options, ILogger<ReportSpool> logger)
    {
        (_maximumBytes, _logger) = (options.Value.SpoolBytes, logger);
        _file = new SpoolFile(Path.Combine(folder.Spool, "reports"));
        foreach (var line in _file.Lines)
        {
            SpoolId = line.SpoolId ?? SpoolId;
            Take(line);
        }

        if (_file.Damaged || SpoolId.Length == 0)
        {
            if (_file.Damaged)
            {
                LogDamaged(_waiting.Count);
                AgentMeter.ReportsDropped.Add(CountMissing(), AgentMeter.Label("why", "damaged"));
            }

            StartOver();
        }
    }

    /// <summary>32 lower-case hex digits.</summary>
    public string SpoolId { get; private set; } = string.Empty;

    /// <summary>What the control plane has answered to be durable: nothing else ever leaves.</summary>
    public SpoolPosition Position
    {
        get
        {
            lock (_lock)
            {
                return new SpoolPosition(SpoolId, (_waiting.TryPeek(out var first) ? first.Sequence : _next) - 1);
            }
        }
    }

    /// <summary>Size of its file.</summary>
    public long Bytes
    {
        get
        {
            lock (_lock)
            {
                return _file.Length;
            }
        }
    }

    public long MaximumBytes => _maximumBytes;

    public int Count
    {
        get
        {
            lock (_lock)
            {
                return _waiting.Count;
            }
        }
    }

    /// <summary>Newest event of a VMM process that was spooled; 0 when none.</summary>
    public long LastEvent(ProcessIdentity vmm)
    {
        lock (_lock)
        {
            return _watermarks.GetValueOrDefault(vmm);
        }
    }

    /// <summary>Appends reports (their sequence is set here) and the VMM's watermark in one durable step.</summary>
    /// <returns>False when the spool is full: nothing was taken, and the VMM keeps its events.</returns>
    /// <exception cref="IOException">The disk is full or failing: nothing was taken.</exception>
    public bool TryAppend(IReadOnlyList<AgentReport> reports, VmmWatermark? watermark = null)
    {
        // Counted outside of the lock: whoever listens to the counts may be waiting for somebody who looks at the spool.
        try
        {
            if (!TryTake(reports, watermark))
            {
                AgentMeter.SpoolRefusals.Add(1, AgentMeter.Label("why", "full"));
                return false;
            }
        }
        catch (IOException)
        {
            AgentMeter.SpoolRefusals.Add(1, AgentMeter.Label("why", "disk"));
            throw;
        }

        AgentMeter.HitsSpooled.Add(reports.Where(report => report.Kind == AgentReport.Hit).Sum(report => report.Count));
        return true;
    }

    /// <summary>The oldest reports, up to a number; empty when none waits.</summary>
    public IReadOnlyList<AgentReport> Peek(int maximum)
    {
        lock (_lock)
        {
            return [.. _waiting.Take(maximum)];
        }
    }

    /// <summary>Removes what the control plane has made durable.</summary>
    public void Acknowledge(long applied)
    {
        lock (_lock)
        {
            while (_waiting.TryPeek(out var report) && report.Sequence <= applied)
            {
                _waiting.Dequeue();
                _mayShrink = true;
            }

            // A restart in between sends acknowledged reports again; they are replays and change nothing.
            if (_waiting.Count == 0 && _file.Length > 256 * 1024)
            {
                Compact();
            }

            Signal();
        }
    }

    /// <summary>
    /// Gives what waits a new spool id and sequences from 1: for a control plane that lost this spool's place (restored from a
    /// backup), to which no report from the gap on was ever applied.
    /// </summary>
    public void StartOver()
    {
        lock (_lock)
        {
            SpoolId = RandomNumberGenerator.GetHexString(32, lowercase: true);
            var renumbered = _waiting.Select((report, index) => report with { Sequence = index + 1 }).ToList();
            _waiting.Clear();
            renumbered.ForEach(_waiting.Enqueue);
            _next = renumbered.Count + 1;
            Compact();
            Signal();
        }
    }

    /// <summary>Completes at the next change: an append, or an acknowledgement that made room.</summary>
    public Task WhenChangedAsync()
    {
        lock (_lock)
        {
            return _changed.Task;
        }
    }

    private bool TryTake(IReadOnlyList<AgentReport> reports, VmmWatermark? watermark)
    {
        lock (_lock)
        {
            if (!HasRoom())
            {
                return false;
            }

            var numbered = reports.Select((report, index) => report with { Sequence = _next + index }).ToList();
            var line = new SpoolLine(null, _next + numbered.Count, watermark is null ? [] : [watermark], numbered);
            _file.Append(line);
            Take(line);
            Signal();
            return true;
        }
    }

    private void Take(SpoolLine line)
    {
        foreach (var report in line.Reports)
        {
            _waiting.Enqueue(InOrder(report));
        }

        foreach (var watermark in line.Watermarks)
        {
            _watermarks[watermark.Vmm] = watermark.LastEvent;
        }

        _next = line.Next;
    }

    // A clock that was set back in between. The control plane would refuse every request with it.
    private static AgentReport InOrder(AgentReport report) =>
        report.LastAt < report.FirstAt ? report with { FirstAt = report.LastAt, LastAt = report.FirstAt } : report;

    private bool HasRoom()
    {
        if (!_file.IsWhole)
        {
            // Cut or removed under the agent's hands. All of it is known here.
            Compact();
        }

        if (_file.Length >= _maximumBytes && _mayShrink)
        {
            Compact();
        }

        return _file.Length < _maximumBytes;
    }

    // Sequences have no gaps but where the disk lost a line.
    private long CountMissing() => _waiting.TryPeek(out var first) ? _next - first.Sequence - _waiting.Count : 0;

    private void Compact()
    {
        foreach (var ended in _watermarks.Keys.Where(vmm => !vmm.IsAlive()).ToList())
        {
            _watermarks.Remove(ended);
        }

        _file.Replace(new SpoolLine(
            SpoolId, _next, [.. _watermarks.Select(pair => new VmmWatermark(pair.Key, pair.Value))], [.. _waiting]));
        _mayShrink = false;
    }

    private void Signal()
    {
        var changed = _changed;
        _changed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        changed.TrySetResult();
    }

    [LoggerMessage(1401, LogLevel.Error, "The spool file is damaged in the middle: reports that had been durable were lost by the disk. {Count} were saved under a new spool id")]
    private partial void LogDamaged(int count);
}
