using System.Globalization;
using System.Text;

namespace Fleet.HostAgent.Observe;

/// <summary>Addresses from <paramref name="Start"/> up to, not including, <paramref name="End"/>.</summary>
public readonly record struct AddressRange(ulong Start, ulong End);

/// <summary>
/// A filter that the kernel evaluates at each event. It takes below 4096 bytes: some 75 ranges. Where there are more, those nearest to each other
/// share one, so that no address is ever left out; what lies between them is then seen too, and whoever reads must look again.
/// </summary>
/// <param name="Text">Null when there is nothing to see.</param>
/// <param name="Ranges">What it lets through, ascending.</param>
/// <param name="IsExact">It lets through what was asked for and nothing else.</param>
public sealed record TraceFilter(string? Text, IReadOnlyList<AddressRange> Ranges, bool IsExact)
{
    /// <summary>event_filter_write() of the kernel refuses a page or more.</summary>
    public const int MaximumBytes = 4095;

    public static TraceFilter Of(string field, IEnumerable<AddressRange> ranges)
    {
        var merged = Merge(ranges);
        if (merged.Count == 0)
        {
            return new TraceFilter(null, [], true);
        }

        var most = MaximumBytes / Term(field, new AddressRange(ulong.MaxValue, ulong.MaxValue)).Length;
        var covering = merged.Count <= most ? merged : Widen(merged, most);
        return new TraceFilter(string.Join("||", covering.Select(range => Term(field, range)[2..])), covering, covering.Count == merged.Count);
    }

    private static List<AddressRange> Merge(IEnumerable<AddressRange> ranges)
    {
        var merged = new List<AddressRange>();
        foreach (var range in ranges.Where(range => range.Start < range.End).OrderBy(range => range.Start))
        {
            if (merged.Count > 0 && range.Start <= merged[^1].End)
            {
                merged[^1] = merged[^1] with { End = Math.Max(merged[^1].End, range.End) };
            }
            else
            {
                merged.Add(range);
            }
        }

        return merged;
    }

    // The widest gaps stay gaps.
    private static List<AddressRange> Widen(List<AddressRange> ranges, int most)
    {
        var gaps = Enumerable.Range(1, ranges.Count - 1)
            .OrderByDescending(index => ranges[index].Start - ranges[index - 1].End)
            .Take(most - 1)
            .ToHashSet();
        var widened = new List<AddressRange> { ranges[0] };
        for (var index = 1; index < ranges.Count; index++)
        {
            if (gaps.Contains(index))
            {
                widened.Add(ranges[index]);
            }
            else
            {
                widened[^1] = widened[^1] with { End = ranges[index].End };
            }
        }

        return widened;
    }

    private static string Term(string field, AddressRange range) =>
        new StringBuilder("||").Append(CultureInfo.InvariantCulture, $"({field}>=0x{range.Start:x}&&{field}<0x{range.End:x})").ToString();
}
