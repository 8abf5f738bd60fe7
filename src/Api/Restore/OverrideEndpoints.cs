using System.Security.Claims;
using Fleet.Api.Agents;
using Fleet.Api.Hosts;
using Fleet.Api.Migrations;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Security;
using Fleet.Api.Vms;
using Fleet.Contracts.Hosts;
using Fleet.Contracts.Vms;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Http.HttpResults;

namespace Fleet.Api.Restore;

public static class OverrideEndpoints
{
    public static void MapRestoreOverrides(this IEndpointRouteBuilder routes)
    {
        routes.MapPost("/hosts/{host}/fence", FenceAsync)
            .RequireAuthorization(Scopes.MigrationsFence)
            .WithName("FenceHost")
            .WithTags("Hosts")
            .WithSummary("Assert, after a restore from backup, that a host is dead and runs no guest")
            .WithDescription(
                "For a host whose statement is `pending` and will not come. Refused while its agent is heard, once it has stated, and where neither the host is awaited nor anything quarantined. "
                + "If it comes back, its poisoned pages join the sets, and it stops guests that others own.")
            .WithProblems(
                ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.HostNotFound,
                ProblemTypes.NotQuarantined, ProblemTypes.FenceRefused, ProblemTypes.HostOnline);

        routes.MapPost("/vms/{vm}/release", ReleaseAsync)
            .RequireAuthorization(Scopes.MigrationsFence)
            .WithName("ReleaseVm")
            .WithTags("VMs")
            .WithSummary("Name the owner of a VM that stays quarantined")
            .WithDescription(
                "For a VM whose `quarantineReason` is `two-live-rights` or `sealed-to-unknown-host`, once no statement is awaited any more. Asserts that its guest "
                + "runs on no host but this one that is not able to hear of it. Other hosts that stated a guest of it stop it.")
            .WithProblems(
                ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.UnknownVm, ProblemTypes.UnknownHost,
                ProblemTypes.NotQuarantined, ProblemTypes.Quarantined);
    }

    private static async Task<Results<Ok<HostResource>, ProblemHttpResult>> FenceAsync(
        string host,
        FenceRequest request,
        ClaimsPrincipal user,
        StoreWriter writer,
        StatusBoard board,
        HostReader reader,
        ILogger<FenceRequest> logger,
        CancellationToken cancellationToken)
    {
        var errors = new ValidationErrors();
        MigrationValidator.CheckReason(request.Reason, isNeeded: true, errors);
        if (errors.TryGetProblem(out var invalid))
        {
            return invalid.ToResult();
        }

        var actor = user.Actor();
        var outcome = await writer.ExecuteAsync(scope => OverrideCommands.FenceAsync(scope, host, request.Reason, actor, board), cancellationToken);
        if (outcome.IsRefused)
        {
            return outcome.Problem.ToResult();
        }

        RestoreLog.Fenced(logger, host, outcome.Value.Quarantined);
        return TypedResults.Ok((await reader.FindAsync(host, cancellationToken))!);
    }

    private static async Task<Results<Ok<VmResource>, ProblemHttpResult>> ReleaseAsync(
        string vm, ReleaseRequest request, ClaimsPrincipal user, StoreWriter writer, VmReader reader, CancellationToken cancellationToken)
    {
        var errors = new ValidationErrors();
        MigrationValidator.CheckId(request.Host, "$.host", errors);
        MigrationValidator.CheckReason(request.Reason, isNeeded: true, errors);
        if (errors.TryGetProblem(out var invalid))
        {
            return invalid.ToResult();
        }

        var actor = user.Actor();
        var outcome = await writer.ExecuteAsync(scope => OverrideCommands.ReleaseAsync(scope, vm, request.Host, request.Reason, actor), cancellationToken);
        return outcome.IsRefused ? outcome.Problem.ToResult()
            : await reader.FindAsync(vm, cancellationToken) is { } resource ? TypedResults.Ok(resource)
            : new Problem(ProblemTypes.UnknownVm).ToResult();
    }
}
