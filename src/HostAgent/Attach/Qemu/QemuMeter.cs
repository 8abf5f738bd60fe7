using System.Diagnostics.Metrics;
using Fleet.HostAgent.Metrics;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>What the agent does to QEMU processes, and what it could not place. No label holds a VM's id.</summary>
public sealed class QemuMeter : IDisposable
{
    public const string Name = AgentMeter.Name;

    private readonly Meter _meter = new(Name);
    private readonly Histogram<double> _stopped;
    private readonly Counter<long> _unplaced;

    public QemuMeter()
    {
        _stopped = _meter.CreateHistogram<double>("vmm.stopped.seconds", "s", "How long a thread of a QEMU process was stopped for injected system calls.");
        _unplaced = _meter.CreateCounter<long>("hits.unplaced", "{hit}", "Memory failures that QEMU told without an address, and that could be any of several pages.");
    }

    public void Stopped(TimeSpan time) => _stopped.Record(time.TotalSeconds);

    public void Unplaced(long hits) => _unplaced.Add(hits);

    public void Dispose() => _meter.Dispose();
}
