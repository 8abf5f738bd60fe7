using CsCheck;
using Fleet.HostAgent.Observe;
using Fleet.Linux.Tracing;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>The kernel's filter never leaves an armed page out (I8), and lets nothing else through unless it says so.</summary>
public sealed class TraceFilterTests
{
    private static readonly Gen<List<AddressRange>> Pages =
        Gen.Select(Gen.ULong[0, 1UL << 34], Gen.ULong[1, 600]).Select((frame, frames) => new AddressRange(frame << 12, (frame + frames) << 12)).List[0, 400];

    [Fact]
    [Trait("Invariant", "I8")]
    public void Of_AnyPages_CoversEachOfThem_WithinTheKernelsLimit() => Pages.Sample(pages =>
    {
        var filter = TraceFilter.Of("fault_address", pages);
        Assert.All(pages, page => Assert.Single(filter.Ranges, range => range.Start <= page.Start && page.End <= range.End));
        Assert.True((filter.Text?.Length ?? 0) <= TraceFilter.MaximumBytes);
        Assert.Equal(pages.Count == 0, filter.Text is null);
        // Ascending and apart, so that a reader can search them.
        Assert.All(filter.Ranges.Zip(filter.Ranges.Skip(1)), pair => Assert.True(pair.First.End < pair.Second.Start));
    }, iter: 300);

    [Fact]
    public void Of_AnyPages_LetsNothingElseThrough_UnlessItSaysSo() => Pages.Sample(pages =>
    {
        var filter = TraceFilter.Of("address", pages);
        var wanted = pages.SelectMany(page => Frames(page)).Distinct().Count();
        var through = filter.Ranges.Sum(range => (long)(range.End - range.Start) >> 12);
        Assert.Equal(filter.IsExact, through == wanted);
        Assert.True(filter.IsExact || pages.Count > 60, "few pages must be exact");
    }, iter: 300);

    [Fact]
    public void Of_TextAndRanges_SayTheSame() => Pages.Sample(pages =>
    {
        var filter = TraceFilter.Of("address", pages);
        Assert.Equal(filter.Text ?? string.Empty, string.Join("||", filter.Ranges.Select(range => $"(address>=0x{range.Start:x}&&address<0x{range.End:x})")));
    }, iter: 100);

    [Fact]
    public void Of_TooManyPages_JoinsThoseThatAreNearest()
    {
        // Eighty pairs of neighbours, far apart from each other.
        var pages = Enumerable.Range(0, 80).SelectMany(pair => new[] { 0UL, 0x2000UL }.Select(at => ((ulong)pair << 30) + at)).Select(start => new AddressRange(start, start + 0x1000));
        var filter = TraceFilter.Of("address", pages);

        Assert.False(filter.IsExact);
        Assert.True(filter.Ranges.Count < 80 && filter.Ranges.Count > 30);
        // All but one or two gaps of those that went are the small ones.
        Assert.True(filter.Ranges.Count(range => range.End - range.Start == 0x3000) >= filter.Ranges.Count - 1);
    }

    [Fact]
    public void Of_LongestFilters_AreTakenByTheKernel()
    {
        var fault = new TraceEvent("exceptions", "page_fault_user");
        using var fs = Requires.TraceFs(fault);
        using var instance = fs.Create("fleet-test", "filters");
        // Addresses with all their digits, far from every process's.
        var top = Enumerable.Range(0, 500).Select(index => new AddressRange(0xffff_0000_0000_0000 + ((ulong)index << 20), 0xffff_0000_0000_0000 + ((ulong)index << 20) + 4096));
        var filter = TraceFilter.Of(UserPageFaultEvent.AddressField, top);
        Assert.InRange(filter.Text!.Length, 3800, TraceFilter.MaximumBytes);

        instance.Enable(fault, filter.Text);
        Assert.Throws<Linux.LinuxException>(() => instance.Enable(fault, filter.Text + "||(address>=0xffffffffffffff00&&address<0xffffffffffffff01)".PadRight(TraceFilter.MaximumBytes)));
    }

    private static IEnumerable<ulong> Frames(AddressRange range)
    {
        for (var at = range.Start; at < range.End; at += 4096)
        {
            yield return at;
        }
    }
}
