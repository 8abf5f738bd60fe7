using System.Globalization;
using System.Text.RegularExpressions;

namespace Fleet.Linux.Tracing;

/// <summary>The kernel took a frame out of use after an uncorrectable error (tracepoint memory_failure_event, Linux 4.3).</summary>
/// <param name="Frame">Physical, in 4 KiB units.</param>
/// <param name="PageType">What the page was, such as <c>dirty LRU page</c>.</param>
/// <param name="Result"><c>Recovered</c>, <c>Delayed</c>, <c>Failed</c> or <c>Ignored</c>.</param>
public sealed partial record MemoryFailureEvent(ulong Frame, string PageType, string Result)
{
    /// <summary>Where the tracepoint is, by the kernel's age.</summary>
    public static readonly IReadOnlyList<TraceEvent> Names = [new("ras", "memory_failure_event"), new("memory_failure", "memory_failure_event")];

    /// <param name="fields">As the tracepoint prints them: <c>pfn 0x1234: recovery action for dirty LRU page: Recovered</c> (tried with 6.12).</param>
    public static MemoryFailureEvent? Parse(string fields)
    {
        var match = Pattern().Match(fields);
        return match.Success && ulong.TryParse(match.Groups[1].ValueSpan, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var frame)
            ? new MemoryFailureEvent(frame, match.Groups[2].Value, match.Groups[3].Value)
            : null;
    }

    [GeneratedRegex(@"\Apfn:? ?0x([0-9a-fA-F]+):? recovery action for (.+): (\w+)\s*\z", RegexOptions.CultureInvariant)]
    private static partial Regex Pattern();
}
