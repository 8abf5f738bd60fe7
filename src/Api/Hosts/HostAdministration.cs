using System.Security.Claims;
using Fleet.Api.Lists;
using Fleet.Api.Migrations;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Security;
using Fleet.Contracts.Hosts;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Mvc;

namespace Fleet.Api.Hosts;

/// <summary>What operators say of a host: drained or not, and its labels.</summary>
public static class HostAdministration
{
    public static void MapHostAdministration(this IEndpointRouteBuilder routes)
    {
        routes.MapPut("/hosts/{host}/drain", DrainAsync)
            .RequireAuthorization(Scopes.HostsWrite)
            .WithName("DrainHost")
            .WithTags("Hosts")
            .WithSummary("Place nothing new on a host")
            .WithDescription(
                "No VM is created there or rebuilt onto it, and no migration to it begins or switches over (`gate-denied`: `target-drained`). A switchover that "
                + "is under way goes on, and what runs there stays: to empty the host, migrate its VMs away. Repeating it changes nothing. `If-Match` is optional.")
            .WithMetadata(new TakesIfMatch())
            .WithProblems(ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.HostNotFound, ProblemTypes.Stale);

        routes.MapDelete("/hosts/{host}/drain", UndrainAsync)
            .RequireAuthorization(Scopes.HostsWrite)
            .WithName("UndrainHost")
            .WithTags("Hosts")
            .WithSummary("Place VMs on a host again")
            .WithDescription("Repeating it changes nothing. `If-Match` is optional.")
            .WithMetadata(new TakesIfMatch())
            .WithProblems(ProblemTypes.InvalidId, ProblemTypes.HostNotFound, ProblemTypes.Stale);

        routes.MapPut("/hosts/{host}/labels", LabelAsync)
            .RequireAuthorization(Scopes.HostsWrite)
            .WithName("LabelHost")
            .WithTags("Hosts")
            .WithSummary("Replace a host's labels")
            .WithDescription(
                "An object of strings, at most 64, which replaces all labels that were there. Names have 1 to 64 letters, digits, dots, underscores, hyphens and slashes, "
                + "values at most 256 characters. They decide nothing by themselves: lists of hosts can be filtered by them. `If-Match` is optional.")
            .WithMetadata(new TakesIfMatch())
            .WithProblems(ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.HostNotFound, ProblemTypes.Stale);
    }

    private static async Task<Results<Ok<HostResource>, ProblemHttpResult>> DrainAsync(
        string host, DrainRequest request, HttpContext http, ClaimsPrincipal user, StoreWriter writer, HostReader reader, CancellationToken cancellationToken)
    {
        var errors = new ValidationErrors();
        MigrationValidator.CheckReason(request.Reason, isNeeded: true, errors);
        if (errors.TryGetProblem(out var invalid))
        {
            return invalid.ToResult();
        }

        var (actor, ifMatch) = (user.Actor(), IfMatch.Of(http.Request));
        var outcome = await writer.ExecuteAsync(scope => HostCommands.DrainAsync(scope, host, true, request.Reason, actor, ifMatch), cancellationToken);
        return await AnswerAsync(outcome, host, http, reader, cancellationToken);
    }

    private static async Task<Results<NoContent, ProblemHttpResult>> UndrainAsync(
        string host, HttpContext http, ClaimsPrincipal user, StoreWriter writer, CancellationToken cancellationToken)
    {
        var (actor, ifMatch) = (user.Actor(), IfMatch.Of(http.Request));
        var outcome = await writer.ExecuteAsync(scope => HostCommands.DrainAsync(scope, host, false, null, actor, ifMatch), cancellationToken);
        return outcome.IsRefused ? outcome.Problem.ToResult() : TypedResults.NoContent();
    }

    private static async Task<Results<Ok<HostResource>, ProblemHttpResult>> LabelAsync(
        string host,
        [FromBody] IReadOnlyDictionary<string, string> labels,
        HttpContext http,
        ClaimsPrincipal user,
        StoreWriter writer,
        HostReader reader,
        CancellationToken cancellationToken)
    {
        if (HostLabels.Validate(labels) is { } invalid)
        {
            return invalid.ToResult();
        }

        var (actor, ifMatch, json) = (user.Actor(), IfMatch.Of(http.Request), HostLabels.ToJson(labels));
        var outcome = await writer.ExecuteAsync(scope => HostCommands.LabelAsync(scope, host, json, actor, ifMatch), cancellationToken);
        return await AnswerAsync(outcome, host, http, reader, cancellationToken);
    }

    private static async Task<Results<Ok<HostResource>, ProblemHttpResult>> AnswerAsync(
        Outcome<Done> outcome, string host, HttpContext http, HostReader reader, CancellationToken cancellationToken)
    {
        if (outcome.IsRefused)
        {
            return outcome.Problem.ToResult();
        }

        // Hosts are never removed.
        var resource = (await reader.FindAsync(host, cancellationToken))!;
        http.Response.Headers.ETag = IfMatch.ETagOf(resource.Version);
        return TypedResults.Ok(resource);
    }
}
