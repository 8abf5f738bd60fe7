using System.Security.Claims;
using Fleet.Api.Agents;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Security;
using Fleet.Contracts.Agents;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Http.HttpResults;

namespace Fleet.Api.Restore;

public static class StatementEndpoints
{
    public static void MapStatement(this IEndpointRouteBuilder routes) =>
        routes.MapPost("/hosts/{host}/statement", StateAsync)
            .RequireOwnAgent()
            .WithName("StateHost")
            .WithTags("Agents")
            .WithSummary("State what the host holds, after a restore from backup")
            .WithDescription(
                "Asked for by `statementRequired` in the answer to a claim; until then nothing else of the host is taken (`statement-required`). "
                + "The agent has promised, durably, to refuse older store epochs. The pages join the VMs' sets at once. Nothing is cleared, but for pages of a quarantined VM "
                + "that lie outside the memory that a live guest is stated to have. "
                + "When every host has stated, or is fenced, each VM gets its owner. Repeating it changes nothing. Once a VM's quarantine has ended, a host that held it before, "
                + "or that was fenced, still adds its pages; what any other states of it is ignored, and so is a VM that is not known once nothing is quarantined or awaited.")
            .WithMetadata(new RequestSizeLimit(64 * 1024 * 1024))
            .WithProblems(
                ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.AgentSuperseded, ProblemTypes.StatementRequired);

    private static async Task<Results<Ok<StatementResult>, ProblemHttpResult>> StateAsync(
        string host,
        StatementRequest request,
        ClaimsPrincipal user,
        StoreWriter writer,
        DesiredIndex index,
        ILogger<StatementRequest> logger,
        CancellationToken cancellationToken)
    {
        if (StatementValidator.Validate(request) is { } invalid)
        {
            return invalid.ToResult();
        }

        var actor = user.Actor();
        var outcome = await writer.ExecuteAsync(scope => StatementCommand.ApplyAsync(scope, host, request, actor), cancellationToken);
        if (outcome.IsRefused)
        {
            return outcome.Problem.ToResult();
        }

        index.Invalidate(host);
        RestoreLog.Stated(logger, host, request.Vms.Count, outcome.Value.Quarantined);
        if (outcome.Value.Ignored is { Count: > 0 } ignored)
        {
            RestoreLog.Ignored(logger, host, ignored.Count, string.Join(", ", ignored.Take(20)));
        }

        return TypedResults.Ok(new StatementResult(request.StoreEpoch));
    }
}
