using Fleet.Api.Lists;
using Fleet.Api.Problems;
using Fleet.Contracts;
using Fleet.Contracts.Pages;
using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Pages;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Pages;

/// <summary>The poisoned set as it was: the present one with the changes since undone, newest first.</summary>
public sealed class PageHistory(StoreContexts contexts)
{
    public async Task<Outcome<PageList>> AsOfAsync(string vmId, long generation, long after, int limit, CancellationToken cancellationToken)
    {
        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        if (await snapshot.Db.Vms.SingleOrDefaultAsync(row => row.Id == vmId, cancellationToken) is not { } vm)
        {
            return ProblemTypes.UnknownVm;
        }

        if (generation < vm.MemoryInstance || generation > vm.Generation)
        {
            var errors = new ValidationErrors();
            errors.Add("asOf", $"A generation of this memory instance: {vm.MemoryInstance} to {vm.Generation}.");
            return errors.ToProblem()!;
        }

        if (await ChangeLog.FloorAsync(snapshot.Db, cancellationToken) is var floor && generation < floor)
        {
            return new Problem(
                ProblemTypes.ChangesGone,
                FormattableString.Invariant($"The changes since generation {generation} are not all kept: the oldest that can be shown is {floor}."),
                Members: new Dictionary<string, object?> { ["floor"] = floor });
        }

        var pages = await ReadAsync(snapshot.Db, vm, generation, cancellationToken);
        var rest = pages.Values.Where(page => page.Frame > after).Take(limit + 1).ToList();
        var next = rest.Count > limit ? Cursor.Of(rest[limit - 1].Frame) : null;
        return new PageList(generation, [.. rest.Take(limit).Select(ToResource)], next);
    }

    private static async Task<SortedDictionary<long, ClearedPage>> ReadAsync(
        FleetDbContext db, VmRow vm, long generation, CancellationToken cancellationToken)
    {
        var pages = new SortedDictionary<long, ClearedPage>();
        foreach (var row in await db.Pages.Where(row => row.Vm == vm.Id).ToListAsync(cancellationToken))
        {
            pages[row.Frame] = PoisonedSet.ToCleared(row);
        }

        var resource = ChangeResources.Vm(vm.Id);
        var payloads = await db.Changes
            .Where(row => row.Resource == resource && row.Revision > generation)
            .Where(row => row.Kind == ChangeKinds.PagesAdded || row.Kind == ChangeKinds.PagesCleared || row.Kind == ChangeKinds.VmUpdated)
            .OrderByDescending(row => row.Revision)
            .Select(row => row.Payload!)
            .ToListAsync(cancellationToken);
        foreach (var change in payloads.Select(PagePayload.Parse))
        {
            foreach (var added in change.Added)
            {
                pages.Remove(added.Frame);
            }

            foreach (var cleared in change.Cleared)
            {
                pages[cleared.Frame] = cleared;
            }
        }

        return pages;
    }

    /// <summary>Without hosts: what they had armed back then is not known. The version is of use to no clear.</summary>
    private static PageResource ToResource(ClearedPage page) => new(
        page.Frame,
        page.Shift,
        HexAddress.Format(FrameMath.AddressOf(page.Frame)),
        page.Class,
        page.Source,
        page.FirstHost,
        page.DetectedAt.ToTime(),
        page.AddedGeneration,
        [],
        page.AddedGeneration);
}
