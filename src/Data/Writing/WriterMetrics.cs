using System.Diagnostics.Metrics;

namespace Fleet.Data.Writing;

internal static class WriterMetrics
{
    /// <summary>Commands that were handed in and are not answered yet.</summary>
    public static readonly UpDownCounter<int> Queue = FleetMeter.Meter.CreateUpDownCounter<int>(
        "writer.queue", null, "Commands handed to the one writer and not answered yet.");

    public static readonly Histogram<int> Batch = FleetMeter.Meter.CreateHistogram<int>(
        "writer.batch", null, "Commands in one transaction.");

    public static readonly Histogram<double> Commit = FleetMeter.Meter.CreateHistogram<double>(
        "writer.transaction.seconds", "s", "Begin to durable, in seconds, of one transaction.");

    public static readonly Counter<int> Failed = FleetMeter.Meter.CreateCounter<int>(
        "writer.batches.failed", null, "Transactions that could not be committed; nothing of them is stored.");
}
