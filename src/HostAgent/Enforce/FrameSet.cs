using Fleet.Contracts;

namespace Fleet.HostAgent.Enforce;

/// <summary>An immutable set of guest frames, as sorted ranges that neither overlap nor touch.</summary>
public sealed class FrameSet
{
    public static readonly FrameSet Empty = new([]);

    private readonly FrameRange[] _ranges;

    private FrameSet(FrameRange[] ranges) => _ranges = ranges;

    public IReadOnlyList<FrameRange> Ranges => _ranges;

    public bool IsEmpty => _ranges.Length == 0;

    public long Frames => _ranges.Sum(range => range.Frames);

    public static FrameSet Of(IEnumerable<PageKey> pages) =>
        Of(pages.Select(page => new FrameRange(page.Frame, page.Frame + FrameMath.FramesOf(page.Shift))));

    public static FrameSet Of(IEnumerable<FrameRange> ranges)
    {
        var merged = new List<FrameRange>();
        foreach (var range in ranges.Where(range => range.Frames > 0).OrderBy(range => range.Start))
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

        return merged.Count == 0 ? Empty : new FrameSet([.. merged]);
    }

    public FrameSet Union(FrameSet other) => Of(_ranges.Concat(other._ranges));

    /// <summary>The frames of this set that are not in the other.</summary>
    public FrameSet Except(FrameSet other)
    {
        var left = new List<FrameRange>();
        var at = 0;
        foreach (var range in _ranges)
        {
            var start = range.Start;
            while (at < other._ranges.Length && other._ranges[at].End <= start)
            {
                at++;
            }

            for (var next = at; next < other._ranges.Length && other._ranges[next].Start < range.End; next++)
            {
                left.Add(new FrameRange(start, other._ranges[next].Start));
                start = Math.Max(start, other._ranges[next].End);
            }

            left.Add(new FrameRange(start, range.End));
        }

        return Of(left);
    }

    public bool Overlaps(FrameRange range)
    {
        // First range that ends after the start: the only one, or the first of those, that can overlap.
        int low = 0, high = _ranges.Length;
        while (low < high)
        {
            var middle = (low + high) / 2;
            (low, high) = _ranges[middle].End > range.Start ? (low, middle) : (middle + 1, high);
        }

        return low < _ranges.Length && _ranges[low].Overlaps(range);
    }

    public bool Contains(long frame) => Overlaps(new FrameRange(frame, frame + 1));
}
