using System.Globalization;
using System.Text.RegularExpressions;

namespace Fleet.Linux.Tracing;

/// <summary>One line of trace_pipe: <c>COMM-TID [CPU] FLAGS TIME: EVENT: FIELDS</c>. The command's name is not kept: it is the traced process's to choose.</summary>
/// <param name="ThreadId">Of the thread in which it happened.</param>
/// <param name="Event">Name of the tracepoint.</param>
/// <param name="Fields">As the tracepoint prints them.</param>
public sealed partial record TraceLine(int ThreadId, string Event, string Fields)
{
    /// <returns>Null when the line is none of an event.</returns>
    public static TraceLine? Parse(string line)
    {
        var match = Line().Match(line);
        return match.Success && int.TryParse(match.Groups[1].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out var thread)
            ? new TraceLine(thread, match.Groups[2].Value, match.Groups[3].Value)
            : null;
    }

    /// <summary>Events lost before this place, of a line <c>CPU:N [LOST N EVENTS]</c>; 0 in any other.</summary>
    public static long ParseLost(string line)
    {
        var match = Lost().Match(line);
        return match.Success && long.TryParse(match.Groups[1].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out var count) ? count : 0;
    }

    // The name is padded to 16 characters; anything may stand in it, also what looks like the rest of a line.
    [GeneratedRegex(@"\A.{16}-(\d+)\s+\[\d+\]\s+\S+\s+[\d.]+: (\w+): (.*)\z", RegexOptions.CultureInvariant)]
    private static partial Regex Line();

    [GeneratedRegex(@"\ACPU:\d+ \[LOST (\d+) EVENTS\]", RegexOptions.CultureInvariant)]
    private static partial Regex Lost();
}
