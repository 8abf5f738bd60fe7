using Fleet.Contracts;
using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Data.Pages;

/// <summary>The part of a VM's set that can cover, or be covered by, some pages; kept up to date while they are added.</summary>
internal sealed class Neighbourhood
{
    public const int ChunkOfFrames = 1000;
    private static readonly int[] Shifts = [12, 21, 30];

    private readonly SortedSet<long> _frames = [];
    private readonly Dictionary<long, PoisonedPageRow> _rows = [];

    public static async Task<Neighbourhood> LoadAsync(FleetDbContext db, string vm, IReadOnlyList<NewPage> pages)
    {
        var result = new Neighbourhood();

        // Whatever covers a page starts where the page would if it were of 4 KiB, 2 MiB or 1 GiB.
        var starts = pages.SelectMany(page => Shifts.Select(shift => FrameMath.PageFrame(page.Frame, shift))).Distinct();
        foreach (var chunk in starts.Chunk(ChunkOfFrames))
        {
            result.AddRange(await db.Pages.Where(row => row.Vm == vm && EF.Parameter(chunk).Contains(row.Frame)).ToListAsync());
        }

        foreach (var (from, frames) in RangesOf(pages))
        {
            result.AddRange(await db.Pages.Where(row => row.Vm == vm && row.Frame >= from && row.Frame < from + frames).ToListAsync());
        }

        return result;
    }

    public PoisonedPageRow? Covering(long frame, int shift)
    {
        foreach (var candidate in Shifts)
        {
            if (candidate >= shift
                && _rows.TryGetValue(FrameMath.PageFrame(frame, candidate), out var row)
                && row.Shift >= candidate)
            {
                return row;
            }
        }

        return null;
    }

    public List<PoisonedPageRow> CoveredBy(long frame, int shift) =>
        [.. _frames.GetViewBetween(frame, frame + FrameMath.FramesOf(shift) - 1).Select(start => _rows[start])];

    public void Add(PoisonedPageRow row)
    {
        _frames.Add(row.Frame);
        _rows[row.Frame] = row;
    }

    public void Remove(PoisonedPageRow row)
    {
        _frames.Remove(row.Frame);
        _rows.Remove(row.Frame);
    }

    /// <summary>Ranges that the pages above 4 KiB span; many 2 MiB pages are read by the 1 GiB they lie in.</summary>
    private static IEnumerable<(long From, long Frames)> RangesOf(IReadOnlyList<NewPage> pages)
    {
        var large = pages.Where(page => page.Shift > FrameMath.FrameShift).Select(page => (page.Frame, page.Shift)).Distinct().ToList();
        return large.Count <= 16
            ? large.Select(page => (page.Frame, FrameMath.FramesOf(page.Shift)))
            : large.Select(page => FrameMath.PageFrame(page.Frame, 30)).Distinct().Select(start => (start, FrameMath.FramesOf(30)));
    }

    private void AddRange(List<PoisonedPageRow> rows) => rows.ForEach(Add);
}
