using System.Diagnostics.Metrics;
using Fleet.Data;

namespace Fleet.Api.Metrics;

/// <summary>What the control plane counts; each is counted only after the commit that it speaks of.</summary>
internal static class FleetMetrics
{
    public static readonly Histogram<double> PushLag = FleetMeter.Meter.CreateHistogram<double>(
        "push.lag.seconds", "s", "From the commit to the bytes handed to the host's connection, in seconds.");

    public static readonly UpDownCounter<int> Streams = FleetMeter.Meter.CreateUpDownCounter<int>(
        "push.streams", null, "Open desired-state streams.");

    public static readonly Counter<int> Openings = FleetMeter.Meter.CreateCounter<int>(
        "push.openings", null, "What desired-state streams opened with: snapshot or unchanged; refused where too many waited for theirs.");

    public static readonly Counter<int> StreamsEnded = FleetMeter.Meter.CreateCounter<int>(
        "push.streams.ended", null, "Desired-state streams that ended, by why.");

    public static readonly Histogram<double> GateLatency = FleetMeter.Meter.CreateHistogram<double>(
        "gate.latency.seconds", "s", "From the switchover to the permit, in seconds.");

    public static readonly Counter<int> Migrations = FleetMeter.Meter.CreateCounter<int>(
        "migrations.ended", null, "Migrations that ended, by state.");

    public static readonly Counter<int> Heartbeats = FleetMeter.Meter.CreateCounter<int>("heartbeats", null, "Heartbeats taken in.");

    public static readonly Counter<int> Reports = FleetMeter.Meter.CreateCounter<int>(
        "reports", null, "Reports of agents that were applied, by kind; replays are not counted.");

    public static readonly Counter<int> Rejected = FleetMeter.Meter.CreateCounter<int>(
        "reports.rejected", null, "Reports that can never be applied, by code.");

    public static readonly Counter<long> Hits = FleetMeter.Meter.CreateCounter<long>(
        "hits", null, "Intercepted accesses stored, with those that one row counts.");

    public static readonly Counter<long> HitsUnreported = FleetMeter.Meter.CreateCounter<long>(
        "hits.unreported", null, "Accesses to poisoned pages that hosts counted and did not report one by one: guests that hammer a page.");

    public static readonly Counter<long> Faults = FleetMeter.Meter.CreateCounter<long>(
        "host.faults", null, "Memory errors of hosts stored, by kind, with those that one row counts.");

    public static readonly Counter<long> FaultsDropped = FleetMeter.Meter.CreateCounter<long>(
        "host.faults.dropped", null, "Memory errors of hosts dropped by retention, as rows.");

    public static readonly Counter<long> HitsDropped = FleetMeter.Meter.CreateCounter<long>(
        "hits.dropped", null, "Hits dropped by retention, as rows.");
}
