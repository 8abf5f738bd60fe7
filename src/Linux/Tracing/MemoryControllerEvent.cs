using System.Globalization;
using System.Text.RegularExpressions;

namespace Fleet.Linux.Tracing;

/// <summary>An error as the memory controller's driver located it (tracepoint ras:mc_event, include/ras/ras_event.h).</summary>
/// <param name="Label">The module's label, of EDAC.</param>
/// <param name="Address">Physical, in bytes.</param>
/// <param name="Grain">How exact the address is, in bytes.</param>
public sealed partial record MemoryControllerEvent(string Label, ulong Address, long Grain)
{
    public static readonly TraceEvent Name = new("ras", "mc_event");

    /// <summary>Whether it speaks of this frame; never where the address is less exact than a frame.</summary>
    public bool Names(ulong frame) => Grain is > 0 and <= 4096 && Address >> 12 == frame;

    /// <param name="fields"><c>1 Corrected error: memory read error on LABEL (mc:0 location:0:0:-1 address:0x… grain:64 syndrome:0x…)</c>.</param>
    public static MemoryControllerEvent? Parse(string fields)
    {
        var match = Pattern().Match(fields);
        return match.Success
            && ulong.TryParse(match.Groups[2].ValueSpan, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var address)
            && long.TryParse(match.Groups[3].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out var grain)
            ? new MemoryControllerEvent(match.Groups[1].Value, address, grain)
            : null;
    }

    [GeneratedRegex(@"\A\d+ \w+ errors?:.* on (.+) \(mc:\d+ location:\S+ address:0x([0-9a-fA-F]+) grain:(\d+) ", RegexOptions.CultureInvariant)]
    private static partial Regex Pattern();
}
