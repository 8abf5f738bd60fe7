using System.ComponentModel;
using Fleet.Api.Lists;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Security;
using Fleet.Contracts;
using Fleet.Contracts.Hosts;
using Microsoft.AspNetCore.Http.HttpResults;

namespace Fleet.Api.Hosts;

public static class HostEndpoints
{
    private static readonly string[] States = [HostStates.Online, HostStates.Unknown, HostStates.Offline];

    public static void MapHosts(this IEndpointRouteBuilder routes)
    {
        routes.MapGet("/hosts", ListAsync)
            .RequireAuthorization(Scopes.Read)
            .WithName("ListHosts")
            .WithTags("Hosts")
            .WithSummary("The known hosts")
            .WithProblems(ProblemTypes.InvalidRequest);

        routes.MapGet("/hosts/{host}", GetAsync)
            .RequireAuthorization(Scopes.Read)
            .WithName("GetHost")
            .WithTags("Hosts")
            .WithSummary("One host")
            .WithProblems(ProblemTypes.InvalidId, ProblemTypes.HostNotFound);
    }

    private static async Task<Results<Ok<ItemList<HostResource>>, ProblemHttpResult>> ListAsync(
        [AsParameters] ListQuery list,
        HostReader reader,
        CancellationToken cancellationToken,
        [Description("Only hosts in this state: online, unknown or offline.")] string? state = null,
        [Description("true: only drained hosts; false: only others.")] string? drained = null,
        [Description("name=value: only hosts with this label. Given several times, hosts with all of them.")] string[]? label = null)
    {
        var errors = new ValidationErrors();
        var limit = list.ReadLimit(errors);
        var after = Cursor.ReadText(list.After, errors) ?? string.Empty;
        if (state is not null && !States.Contains(state))
        {
            errors.Add("state", $"One of {string.Join(", ", States)}.");
        }

        if (drained is not (null or "true" or "false"))
        {
            errors.Add("drained", "true or false.");
        }

        var labels = HostLabels.ReadFilter(label ?? [], errors);
        return errors.TryGetProblem(out var problem)
            ? problem.ToResult()
            : TypedResults.Ok(await reader.ListAsync(after, limit, new HostFilter(state, drained is null ? null : drained == "true", labels), cancellationToken));
    }

    private static async Task<Results<Ok<HostResource>, ProblemHttpResult>> GetAsync(
        string host, HttpContext http, HostReader reader, CancellationToken cancellationToken)
    {
        if (await reader.FindAsync(host, cancellationToken) is not { } resource)
        {
            return new Problem(ProblemTypes.HostNotFound).ToResult();
        }

        http.Response.Headers.ETag = IfMatch.ETagOf(resource.Version);
        return TypedResults.Ok(resource);
    }
}
