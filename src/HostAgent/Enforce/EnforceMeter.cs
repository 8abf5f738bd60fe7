using System.Diagnostics.Metrics;

namespace Fleet.HostAgent.Enforce;

/// <summary>What enforcement counts, for whoever listens to the meter <c>Fleet.HostAgent</c>.</summary>
public static class EnforceMeter
{
    public const string Name = "Fleet.HostAgent";

    private static readonly Meter Meter = new(Name);
    private static readonly Counter<long> Lost = Meter.CreateCounter<long>(
        "markers.lost", null, "Frames that had been armed, and were found without marker or trap; each was armed again.");

    public static void MarkersLost(long frames) => Lost.Add(frames);
}
