using System.Diagnostics.Metrics;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Spool;

namespace Fleet.HostAgent.Metrics;

/// <summary>What is looked up when it is asked for. One for each agent, so that several in a process do not mix.</summary>
public sealed class AgentGauges : IDisposable
{
    private static readonly string[] States = [EnforcementStates.Armed, EnforcementStates.Pending, EnforcementStates.Failed];

    private readonly Meter _meter;

    public AgentGauges(VmTable table, ReportSpool spool, HeldBack held, ReconcileProgress progress, Heartbeats heartbeats, TimeProvider time)
    {
        _meter = new Meter(new MeterOptions(AgentMeter.Name) { Scope = this });
        _meter.CreateObservableGauge("vms", () => VmsByState(table), null, "VMs of this host by what their enforcement is.");
        _meter.CreateObservableGauge("vms.attached", () => table.All.Count(entry => entry.Attachment is not null), null, "VMMs whose memory the agent holds.");
        _meter.CreateObservableGauge("armed.frames", () => table.All.Sum(entry => entry.Confirmed.Frames), null, "Frames of 4 KiB that the kernel confirmed as armed at the last look.");
        _meter.CreateObservableGauge("spool.reports", () => spool.Count, null, "Reports that wait for the control plane.");
        _meter.CreateObservableGauge("spool.bytes", () => spool.Bytes, null, "Size of the spool's file.");
        _meter.CreateObservableGauge("spool.limit.bytes", () => spool.MaximumBytes, null, "Size from which the spool takes no more (Agent:SpoolBytes).");
        _meter.CreateObservableGauge("spool.held.back", () => held.Vms, null, "VMs whose events wait in their VMM, because the spool is full or cannot be written.");
        _meter.CreateObservableGauge("reconcile.last.age.seconds", () => time.GetElapsedTime(progress.LastTurn).TotalSeconds, "s", "Since the reconcile loop last ended a step.");
        _meter.CreateObservableGauge("control.plane.connected", () => heartbeats.Connected ? 1 : 0, null, "1 while heartbeats are answered.");
        _meter.CreateObservableGauge("process.resident.bytes", () => Environment.WorkingSet, null, "Resident memory of the agent.");
        _meter.CreateObservableCounter("process.cpu.seconds", () => Environment.CpuUsage.TotalTime.TotalSeconds, "s", "Processor time of the agent.");
        _meter.CreateObservableGauge("process.open.files", () => Directory.GetFileSystemEntries("/proc/self/fd").Length, null, "Open descriptors of the agent, those that it borrowed among them.");
    }

    public void Dispose() => _meter.Dispose();

    private static IEnumerable<Measurement<int>> VmsByState(VmTable table)
    {
        var states = table.All.Select(entry => entry.Status?.State).OfType<string>().ToList();
        return States.Select(state => new Measurement<int>(states.Count(other => other == state), AgentMeter.Label("state", state)));
    }
}
