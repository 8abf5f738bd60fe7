using Fleet.Api.Lists;
using Fleet.Api.Migrations;
using Fleet.Api.Problems;
using Fleet.Api.Vms;
using Fleet.Contracts.Pages;
using Fleet.Data.Entities;
using Fleet.Data.Pages;
using Fleet.Data.Writing;

namespace Fleet.Api.Pages;

/// <summary>Commands of the writer on a VM's poisoned set.</summary>
internal static class PageCommands
{
    public static async Task<Outcome<AddPagesResult>> AddAsync(WriteScope scope, string vmId, AddPagesRequest request, string actor)
    {
        if (await scope.Db.Vms.FindAsync(vmId) is not { } vm)
        {
            return ProblemTypes.UnknownVm;
        }

        if (PageValidator.Validate(request, MemoryLayout.Parse(vm.Memory)) is { } invalid)
        {
            return invalid;
        }

        var pages = request.Pages
            .Select(page => new NewPage(
                page.Frame,
                page.Shift,
                page.Class ?? PageClasses.Unknown,
                page.Source ?? PageSources.Operator,
                vm.Host,
                page.DetectedAt?.ToUnixTimeMilliseconds() ?? scope.Now))
            .ToList();
        var added = await PoisonedSet.AddAsync(scope, vm, pages, actor, request.Reason);
        return new AddPagesResult(vm.Generation, added.Added, added.Already);
    }

    public static async Task<Outcome<Done>> ClearAsync(WriteScope scope, string vmId, long frame, string reason, string actor, IfMatch ifMatch)
    {
        if (await scope.Db.Vms.FindAsync(vmId) is not { } vm)
        {
            return ProblemTypes.UnknownVm;
        }

        if (await MigrationGuard.RefuseAsync(scope.Db, vm) is { } refused)
        {
            return refused;
        }

        if (await PoisonedSet.FindCoveringAsync(scope.Db, vmId, frame) is not { } page)
        {
            return ProblemTypes.UnknownPage;
        }

        if (page.Frame != frame)
        {
            return new Problem(
                ProblemTypes.CoveredByLarger,
                "Clear the larger page as a whole, if at all.",
                Members: new Dictionary<string, object?> { ["frame"] = page.Frame, ["shift"] = page.Shift });
        }

        if (!ifMatch.Matches(page.Version))
        {
            return ProblemTypes.Stale;
        }

        PoisonedSet.Clear(scope, vm, page, actor, reason);
        return new Done();
    }
}
