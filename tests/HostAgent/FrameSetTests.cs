using CsCheck;
using Fleet.Contracts;
using Fleet.HostAgent.Enforce;

namespace Fleet.HostAgent.Tests;

public sealed class FrameSetTests
{
    private static readonly Gen<FrameRange[]> Ranges =
        Gen.Select(Gen.Long[0, 60], Gen.Long[0, 8], (start, frames) => new FrameRange(start, start + frames)).Array[0, 12];

    [Fact]
    public void Operations_AnyRanges_AreThoseOfSets() =>
        Gen.Select(Ranges, Ranges).Sample((left, right) =>
        {
            var a = FrameSet.Of(left);
            var b = FrameSet.Of(right);
            var modelA = Expand(left);
            var modelB = Expand(right);

            Assert.Equal(modelA.Union(modelB).Order(), Expand(a.Union(b).Ranges).Order());
            Assert.Equal(modelA.Except(modelB).Order(), Expand(a.Except(b).Ranges).Order());
            Assert.Equal(modelA.Count, a.Frames);
            Assert.All(right, range => Assert.Equal(range.Frames > 0 && Expand([range]).Overlaps(modelA), a.Overlaps(range) && range.Frames > 0));
            for (var frame = -1L; frame < 70; frame++)
            {
                Assert.Equal(modelA.Contains(frame), a.Contains(frame));
            }

            AssertNormal(a.Union(b));
            AssertNormal(a.Except(b));
        }, iter: 2000);

    [Fact]
    public void Of_Pages_CoversWholeHugePages()
    {
        var set = FrameSet.Of([new PageKey(512, 21), new PageKey(1024, 12), new PageKey(7, 12)]);

        Assert.Equal([new FrameRange(7, 8), new FrameRange(512, 1025)], set.Ranges);
    }

    private static void AssertNormal(FrameSet set)
    {
        Assert.All(set.Ranges, range => Assert.True(range.Frames > 0));
        Assert.All(set.Ranges.Zip(set.Ranges.Skip(1)), pair => Assert.True(pair.First.End < pair.Second.Start));
    }

    private static HashSet<long> Expand(IEnumerable<FrameRange> ranges) =>
        [.. ranges.SelectMany(range => Enumerable.Range(0, (int)range.Frames).Select(i => range.Start + i))];
}
