using System.Diagnostics;
using System.Diagnostics.Metrics;

namespace Fleet.Data;

/// <summary>The names under which this program measures and traces itself. Labels never hold ids of VMs: there are too many.</summary>
public static class FleetMeter
{
    public const string Name = "Fleet";

    public static readonly Meter Meter = new(Name);

    public static readonly ActivitySource Activities = new(Name);
}
