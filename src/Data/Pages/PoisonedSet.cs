using Fleet.Contracts;
using Fleet.Contracts.Pages;
using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Data.Pages;

/// <summary>
/// The algebra of a VM's poisoned set: at most one page covers a frame; a larger page absorbs those it covers; a covered page
/// is there already. Runs inside a command of the writer; the VM's row must come from the command's context.
/// </summary>
public static class PoisonedSet
{
    private static readonly int[] Shifts = [12, 21, 30];

    /// <summary>Adds pages in order. Already poisoned ones count as reported again: the version of what covers them is bumped.</summary>
    public static async Task<AddedPages> AddAsync(WriteScope scope, VmRow vm, IReadOnlyList<NewPage> pages, string actor, string? reason)
    {
        var near = await Neighbourhood.LoadAsync(scope.Db, vm.Id, pages);
        var added = new HashSet<PoisonedPageRow>();
        var absorbed = new List<PoisonedPageRow>();
        var reportedAgain = new HashSet<PoisonedPageRow>();
        var newPages = 0;
        foreach (var page in pages)
        {
            if (near.Covering(page.Frame, page.Shift) is { } covering)
            {
                reportedAgain.Add(covering);
                continue;
            }

            foreach (var covered in near.CoveredBy(page.Frame, page.Shift))
            {
                near.Remove(covered);
                reportedAgain.Remove(covered);
                if (!added.Remove(covered))
                {
                    absorbed.Add(covered);
                }
            }

            var row = page.ToRow(vm);
            near.Add(row);
            added.Add(row);
            newPages++;
        }

        if (newPages + reportedAgain.Count > 0)
        {
            await WriteAsync(scope, vm, added, absorbed, reportedAgain, actor, reason);
        }

        return new AddedPages(newPages, pages.Count - newPages);
    }

    /// <summary>Adds those of the pages that nothing in the set covers yet; what is covered is not touched.</summary>
    public static async Task<int> AddMissingAsync(WriteScope scope, VmRow vm, IEnumerable<PageKey> pages, string? firstHost, string actor, string reason)
    {
        var known = (await scope.Db.Pages.Where(row => row.Vm == vm.Id).Select(row => new PageKey(row.Frame, row.Shift)).ToListAsync()).ToHashSet();
        var missing = pages
            .Where(page => !IsCovered(page, known))
            .Select(page => new NewPage(page.Frame, page.Shift, PageClasses.Unknown, PageSources.MemoryFailure, firstHost, scope.Now))
            .ToList();
        if (missing.Count > 0)
        {
            await AddAsync(scope, vm, missing, actor, reason);
            await scope.Db.SaveChangesAsync();
        }

        return missing.Count;
    }

    private static bool IsCovered(PageKey page, HashSet<PageKey> known) =>
        Shifts.Any(shift => shift >= page.Shift && known.Contains(new PageKey(FrameMath.PageFrame(page.Frame, shift), shift)));

    /// <summary>Takes pages out of the set: an explicit, audited change (I3).</summary>
    public static void Clear(WriteScope scope, VmRow vm, PoisonedPageRow page, string actor, string reason)
    {
        var payload = new PagePayload(vm.MemoryInstance, vm.Generation, [], [ToCleared(page)]);
        var revision = scope.Change(ChangeKinds.PagesCleared, ChangeResources.Vm(vm.Id), actor, reason, payload.ToJson());
        scope.Db.Pages.Remove(page);
        vm.Generation = revision;
        vm.PoisonedPages--;
        scope.Touch(vm.Host, vm.Id);
    }

    public static ClearedPage ToCleared(PoisonedPageRow row) =>
        new(row.Frame, row.Shift, row.Class, row.Source, row.FirstHost, row.DetectedAt, row.AddedGeneration);

    /// <summary>The page that covers a frame, if any.</summary>
    public static async Task<PoisonedPageRow?> FindCoveringAsync(FleetDbContext db, string vm, long frame)
    {
        long small = FrameMath.PageFrame(frame, 12), middle = FrameMath.PageFrame(frame, 21), large = FrameMath.PageFrame(frame, 30);
        var candidates = await db.Pages
            .Where(row => row.Vm == vm && (row.Frame == small || row.Frame == middle || row.Frame == large))
            .ToListAsync();
        return candidates.Find(row => FrameMath.PageFrame(frame, row.Shift) == row.Frame);
    }

    private static async Task WriteAsync(
        WriteScope scope,
        VmRow vm,
        HashSet<PoisonedPageRow> added,
        List<PoisonedPageRow> absorbed,
        HashSet<PoisonedPageRow> reportedAgain,
        string actor,
        string? reason)
    {
        var kind = added.Count > 0 ? ChangeKinds.PagesAdded : ChangeKinds.PagesReportedAgain;
        var payload = new PagePayload(
            vm.MemoryInstance,
            vm.Generation,
            [.. added.Select(row => new PageKey(row.Frame, row.Shift))],
            [.. absorbed.Select(ToCleared)]);
        var revision = scope.Change(kind, ChangeResources.Vm(vm.Id), actor, reason, payload.ToJson());
        await BumpAsync(scope.Db, vm.Id, [.. reportedAgain.Except(added)], revision);
        if (added.Count == 0)
        {
            return;
        }

        // An absorbed page may start at the absorbing page's first frame: the same key, so the row is changed in place.
        var replaced = absorbed.ToDictionary(row => row.Frame);
        foreach (var row in added)
        {
            row.AddedGeneration = revision;
            row.Version = revision;
            if (replaced.Remove(row.Frame, out var old))
            {
                scope.Db.Entry(old).CurrentValues.SetValues(row);
            }
            else
            {
                scope.Db.Pages.Add(row);
            }
        }

        scope.Db.Pages.RemoveRange(replaced.Values);
        vm.PoisonedPages += added.Count - absorbed.Count;
        vm.Generation = revision;
        scope.Touch(vm.Host, vm.Id);
    }

    // A seal reports the whole set again while the guest stands still: one statement for many rows, not one for each.
    private static async Task BumpAsync(FleetDbContext db, string vm, IReadOnlyList<PoisonedPageRow> rows, long revision)
    {
        foreach (var frames in rows.Select(row => row.Frame).Chunk(Neighbourhood.ChunkOfFrames))
        {
            await db.Pages.Where(row => row.Vm == vm && EF.Parameter(frames).Contains(row.Frame))
                .ExecuteUpdateAsync(set => set.SetProperty(row => row.Version, revision));
        }

        foreach (var row in rows)
        {
            // The statement went past the change tracker, which compares versions when it writes the row.
            var version = db.Entry(row).Property(entity => entity.Version);
            version.OriginalValue = revision;
            version.CurrentValue = revision;
            version.IsModified = false;
        }
    }
}
