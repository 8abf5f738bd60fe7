using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Data.Storage;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Health;

public static class HealthEndpoints
{
    public static void MapHealth(this IEndpointRouteBuilder routes)
    {
        routes.MapGet("/health/live", () => TypedResults.Text("live"))
            .AllowAnonymous()
            .WithName("Live")
            .WithTags("Health")
            .WithSummary("Whether the process answers")
            .WithDescription("`live`, and nothing else: it touches neither the store nor the agents.")
            .Produces<string>(StatusCodes.Status200OK, "text/plain");

        routes.MapGet("/health/ready", ReadyAsync)
            .AllowAnonymous()
            .WithName("Ready")
            .WithTags("Health")
            .WithSummary("Whether the store is reachable and migrated")
            .WithDescription("`ready` once requests can be served; 503 `not-ready` before that, and while the store cannot be read.")
            .Produces<string>(StatusCodes.Status200OK, "text/plain")
            .WithProblems(ProblemTypes.NotReady);
    }

    private static async Task<Results<ContentHttpResult, ProblemHttpResult>> ReadyAsync(
        StoreStartup startup, StoreContexts contexts, ILogger<StoreStartup> logger, CancellationToken cancellationToken)
    {
        try
        {
            await using var db = contexts.OpenReader();
            if (startup.IsReady && await db.Counter.AnyAsync(cancellationToken))
            {
                return TypedResults.Text("ready");
            }
        }
        catch (Exception exception) when (exception is not OperationCanceledException)
        {
            HealthLog.NotReady(logger, exception);
        }

        return new Problem(ProblemTypes.NotReady).ToResult();
    }
}
