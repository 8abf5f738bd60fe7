using System.ComponentModel;
using System.Globalization;
using System.Security.Claims;
using Fleet.Api.Agents;
using Fleet.Api.Lists;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Security;
using Fleet.Api.Startup;
using Fleet.Contracts;
using Fleet.Contracts.Pages;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Http.HttpResults;

namespace Fleet.Api.Pages;

public static class PageEndpoints
{
    public static void MapPages(this IEndpointRouteBuilder routes)
    {
        routes.MapPost("/vms/{vm}/pages", AddAsync)
            .RequireAuthorization(Scopes.PagesWrite)
            .WithName("AddPages")
            .WithTags("Pages")
            .WithSummary("Report poisoned pages")
            .WithDescription(
                "All or nothing: one page that is not valid, and none is taken. A larger page absorbs those it covers; a covered one is `already` "
                + "(and counts as a newer strike for a conditional clear). 2xx means durable.")
            .WithMetadata(new RequestSizeLimit(RequestLimits.LargeBody))
            .WithProblems(
                ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.TooManyPages,
                ProblemTypes.PageUnaligned, ProblemTypes.FrameOutsideMemory, ProblemTypes.UnknownVm);

        routes.MapGet("/vms/{vm}/pages", ListAsync)
            .RequireAuthorization(Scopes.Read)
            .WithName("ListPages")
            .WithTags("Pages")
            .WithSummary("The poisoned pages of a VM, by frame, with their state on its host")
            .WithProblems(ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.UnknownVm, ProblemTypes.ChangesGone);

        routes.MapDelete("/vms/{vm}/pages/{frame}", ClearAsync)
            .RequireAuthorization(Scopes.PagesClear)
            .WithName("ClearPage")
            .WithTags("Pages")
            .WithSummary("Clear a poisoned page")
            .WithDescription("Explicit and audited. `If-Match` with the page's `version` keeps a clear from removing a newer strike.")
            .WithMetadata(new TakesIfMatch())
            .WithProblems(
                ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.UnknownVm, ProblemTypes.UnknownPage,
                ProblemTypes.CoveredByLarger, ProblemTypes.Stale, ProblemTypes.MigrationSwitching, ProblemTypes.Quarantined);
    }

    private static async Task<Results<Ok<AddPagesResult>, ProblemHttpResult>> AddAsync(
        string vm, AddPagesRequest request, ClaimsPrincipal user, StoreWriter writer, PageReader reader, CancellationToken cancellationToken)
    {
        if (PageValidator.Validate(request) is { } invalid)
        {
            // With the layout, if the VM is there, to tell of all errors at once; without troubling the writer.
            var layout = await reader.LayoutOfAsync(vm, cancellationToken);
            return (PageValidator.Validate(request, layout) ?? invalid).ToResult();
        }

        var actor = user.Actor();
        var outcome = await writer.ExecuteAsync(scope => PageCommands.AddAsync(scope, vm, request, actor), cancellationToken);
        return outcome.IsRefused ? outcome.Problem.ToResult() : TypedResults.Ok(outcome.Value);
    }

    private static async Task<Results<Ok<PageList>, ProblemHttpResult>> ListAsync(
        string vm,
        [AsParameters] ListQuery list,
        PageReader reader,
        PageHistory history,
        CancellationToken cancellationToken,
        [Description("Only pages added after this generation.")] string? since = null,
        [Description("The set as it was at this generation of the present memory instance; without states on hosts.")] string? asOf = null)
    {
        var errors = new ValidationErrors();
        var limit = list.ReadLimit(errors);
        var after = Cursor.ReadNumber(list.After, errors) ?? -1;
        var sinceGeneration = ReadGeneration(since, "since", errors) ?? 0;
        var asOfGeneration = ReadGeneration(asOf, "asOf", errors);
        if (since is not null && asOf is not null)
        {
            errors.Add("asOf", "Not together with since.");
        }

        if (errors.TryGetProblem(out var problem))
        {
            return problem.ToResult();
        }

        if (asOfGeneration is { } generation)
        {
            var outcome = await history.AsOfAsync(vm, generation, after, limit, cancellationToken);
            return outcome.IsRefused ? outcome.Problem.ToResult() : TypedResults.Ok(outcome.Value);
        }

        return await reader.ListAsync(vm, after, sinceGeneration, limit, cancellationToken) is { } pages
            ? TypedResults.Ok(pages)
            : new Problem(ProblemTypes.UnknownVm).ToResult();
    }

    private static long? ReadGeneration(string? text, string name, ValidationErrors errors)
    {
        if (text is null)
        {
            return null;
        }

        if (long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var generation))
        {
            return generation;
        }

        errors.Add(name, "A generation: a whole number.");
        return null;
    }

    private static async Task<Results<NoContent, ProblemHttpResult>> ClearAsync(
        string vm,
        string frame,
        HttpContext http,
        ClaimsPrincipal user,
        StoreWriter writer,
        CancellationToken cancellationToken,
        [Description("Why; kept in the audit trail. Needed.")] string? reason = null)
    {
        var errors = new ValidationErrors();
        if (!long.TryParse(frame, NumberStyles.None, CultureInfo.InvariantCulture, out var number) || number > FrameMath.MaximumFrame)
        {
            errors.Add("frame", "A guest frame number: a whole number.");
        }

        if (string.IsNullOrWhiteSpace(reason))
        {
            errors.Add("reason", "Needed.");
        }

        PageValidator.CheckReason(reason, "reason", errors);
        if (errors.TryGetProblem(out var problem))
        {
            return problem.ToResult();
        }

        var actor = user.Actor();
        var ifMatch = IfMatch.Of(http.Request);
        var outcome = await writer.ExecuteAsync(scope => PageCommands.ClearAsync(scope, vm, number, reason!, actor, ifMatch), cancellationToken);
        return outcome.IsRefused ? outcome.Problem.ToResult() : TypedResults.NoContent();
    }
}
