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
        [AsParameters] ListQuery list, HostReader reader, CancellationToken cancellationToken)
    {
        var errors = new ValidationErrors();
        var limit = list.ReadLimit(errors);
        var after = Cursor.ReadText(list.After, errors) ?? string.Empty;
        return errors.TryGetProblem(out var problem)
            ? problem.ToResult()
            : TypedResults.Ok(await reader.ListAsync(after, limit, cancellationToken));
    }

    private static async Task<Results<Ok<HostResource>, ProblemHttpResult>> GetAsync(string host, HostReader reader, CancellationToken cancellationToken) =>
        await reader.FindAsync(host, cancellationToken) is { } resource
            ? TypedResults.Ok(resource)
            : new Problem(ProblemTypes.HostNotFound).ToResult();
}
