using System.Collections.Immutable;
using Fleet.Contracts.Handoff;

namespace Fleet.TinyVmm.Memory;

/// <summary>A set of guest frames that never changes: sorted, merged ranges.</summary>
public sealed class FrameRanges
{
    public static readonly FrameRanges Empty = new([]);

    private readonly ImmutableArray<HandoffFrames> _ranges;

    private FrameRanges(ImmutableArray<HandoffFrames> ranges) => _ranges = ranges;

    public ImmutableArray<HandoffFrames> Ranges => _ranges;

    /// <summary>False when a range is empty, reversed or negative.</summary>
    public static bool TryCreate(IEnumerable<HandoffFrames?> ranges, out FrameRanges frames)
    {
        frames = Empty;
        var sorted = ranges.ToList();
        if (sorted.Any(range => range is null || range.Start < 0 || range.End <= range.Start))
        {
            return false;
        }

        var merged = new List<HandoffFrames>();
        foreach (var range in sorted.OrderBy(range => range!.Start))
        {
            if (merged.Count > 0 && range!.Start <= merged[^1].End)
            {
                merged[^1] = merged[^1] with { End = Math.Max(merged[^1].End, range.End) };
            }
            else
            {
                merged.Add(range!);
            }
        }

        frames = new FrameRanges([.. merged]);
        return true;
    }

    public bool Contains(long frame)
    {
        var (low, high) = (0, _ranges.Length);
        while (low < high)
        {
            var middle = (low + high) / 2;
            (low, high) = _ranges[middle].End <= frame ? (middle + 1, high) : (low, middle);
        }

        return low < _ranges.Length && _ranges[low].Start <= frame;
    }
}
