using System.Diagnostics.Metrics;

namespace Fleet.HostAgent.Metrics;

/// <summary>
/// What the agent counts. Names have dots and no unit; at the endpoint they become <c>fleet_agent_…</c>, counters end in <c>_total</c>. No label
/// holds the id of a VM, a host or a process: the number of series is fixed. Instruments on another <see cref="Meter"/> of this name are served as well.
/// </summary>
public static class AgentMeter
{
    public const string Name = "Fleet.HostAgent";

    public static readonly Meter Meter = new(Name);

    public static readonly Counter<long> MarkersLost = Meter.CreateCounter<long>(
        "markers.lost", null, "Frames whose poison marker had been confirmed and was gone at the next look; they were armed again.");

    public static readonly Counter<long> HitsSpooled = Meter.CreateCounter<long>(
        "hits.spooled", null, "Intercepted accesses that are durable in the spool, with those that one report counts.");

    public static readonly Counter<long> SpoolRefusals = Meter.CreateCounter<long>(
        "spool.refusals", null, "Appends that the spool did not take, by why: full, or disk. Whoever made them keeps them and tries again.");

    public static readonly Counter<long> ReportsDropped = Meter.CreateCounter<long>(
        "reports.dropped", null, "Reports that will never be applied, by why: refused by the control plane for good, damaged on this host's disk, or stopped: the agent, or what it was to tell of, ended while the spool took nothing.");

    public static readonly Counter<long> ReportRequestsRefused = Meter.CreateCounter<long>(
        "report.requests.refused", null, "Requests with reports that the control plane refused whole as malformed (400): they are sent again, and no report behind them arrives.");

    public static readonly Histogram<double> Reconcile = Meter.CreateHistogram<double>(
        "reconcile.seconds", "s", "One look at one VM, from desired state to what the kernel confirmed, in seconds.");

    public static readonly Counter<long> ReconcileDefects = Meter.CreateCounter<long>(
        "reconcile.defects", null, "Looks at a VM that ended in an exception.");

    public static readonly Counter<long> EventLoopFailures = Meter.CreateCounter<long>(
        "event.loop.failures", null, "userfaultfd events that could not be answered, and descriptors that failed.");

    public static readonly Counter<long> HandoffsRefused = Meter.CreateCounter<long>(
        "handoffs.refused", null, "Handoffs that were refused, by code.");

    public static readonly Counter<long> HandoffDefects = Meter.CreateCounter<long>(
        "handoff.defects", null, "Connections of VMMs that ended in an exception of the agent's own.");

    /// <summary>The one label of a counter.</summary>
    public static KeyValuePair<string, object?> Label(string name, string value) => new(name, value);
}
