using System.Security.Claims;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Security;
using Fleet.Api.Startup;
using Fleet.Api.Vms;
using Fleet.Contracts;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Migrations;

public static class VmLifeEndpoints
{
    public static void MapVmLife(this IEndpointRouteBuilder routes)
    {
        routes.MapPost("/vms/{vm}/park", ParkAsync)
            .RequireAuthorization(Scopes.MigrationsWrite)
            .WithName("ParkVm")
            .WithTags("VMs")
            .WithSummary("Take a VM whose state is saved off its host")
            .WithDescription(
                "Makes a migration without a target and answers with it: 202 until the owner's agent has sealed, 200 once the VM has no host. Repeating it joins. "
                + "A migration restores the VM later. `sourceFenced` as in a switchover.")
            .Produces<MigrationResource>(StatusCodes.Status202Accepted)
            .WithProblems(
                ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.UnknownVm, ProblemTypes.NotPlaced,
                ProblemTypes.MigrationActive, ProblemTypes.Quarantined, ProblemTypes.ResetWanted, ProblemTypes.HostOnline, ProblemTypes.FenceRefused);

        routes.MapPost("/vms/{vm}/reset", ResetAsync)
            .RequireAuthorization(Scopes.PagesClear)
            .WithName("ResetVm")
            .WithTags("VMs")
            .WithSummary("Start the VM cold, with fresh RAM and an empty set")
            .WithDescription(
                "202: done once the owner's agent attests that no VMM holds the old RAM; `resetWanted` on the VM tells. 200: done. Not while a migration is active.")
            .Produces<VmResource>(StatusCodes.Status202Accepted)
            .WithProblems(
                ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.UnknownVm,
                ProblemTypes.MigrationActive, ProblemTypes.Quarantined);

        routes.MapPost("/vms/{vm}/rebuild", RebuildAsync)
            .RequireAuthorization(Scopes.MigrationsWrite, Scopes.MigrationsFence)
            .WithName("RebuildVm")
            .WithTags("VMs")
            .WithSummary("Give a dead host's VM to another host, without its RAM")
            .WithDescription(
                "Asserts that the owner is dead. New owner, epoch and memory instance, empty set. Refused "
                + "while the owner's agent is heard.")
            .WithProblems(
                ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.UnknownVm, ProblemTypes.UnknownHost,
                ProblemTypes.HostDrained, ProblemTypes.MigrationActive, ProblemTypes.Quarantined, ProblemTypes.HostOnline, ProblemTypes.FenceRefused);
    }

    private static async Task<Results<Ok<MigrationResource>, Accepted<MigrationResource>, ProblemHttpResult>> ParkAsync(
        string vm,
        ParkRequest request,
        ClaimsPrincipal user,
        StoreWriter writer,
        VmLifeCommands commands,
        MigrationReader reader,
        IOptions<FleetOptions> options,
        CancellationToken cancellationToken)
    {
        if (CheckReason(request.Reason) is { } invalid)
        {
            return invalid.ToResult();
        }

        if (request.SourceFenced && !user.Has(Scopes.MigrationsFence))
        {
            return MigrationEndpoints.NeedsFence().ToResult();
        }

        var (actor, lifetime) = (user.Actor(), options.Value.SwitchoverLifetime);
        var outcome = await writer.ExecuteAsync(scope => commands.ParkAsync(scope, vm, request, actor, lifetime), cancellationToken);
        if (outcome.IsRefused)
        {
            return outcome.Problem.ToResult();
        }

        var resource = (await reader.FindAsync(outcome.Value, cancellationToken))!;
        return resource.State == MigrationStates.Switching
            ? TypedResults.Accepted(Routes.Migration(resource.Id), resource)
            : TypedResults.Ok(resource);
    }

    private static async Task<Results<Ok<VmResource>, Accepted<VmResource>, ProblemHttpResult>> ResetAsync(
        string vm, ResetRequest request, ClaimsPrincipal user, StoreWriter writer, VmReader reader, CancellationToken cancellationToken)
    {
        if (CheckReason(request.Reason) is { } invalid)
        {
            return invalid.ToResult();
        }

        var actor = user.Actor();
        var outcome = await writer.ExecuteAsync(scope => VmLifeCommands.ResetAsync(scope, vm, request, actor), cancellationToken);
        if (outcome.IsRefused)
        {
            return outcome.Problem.ToResult();
        }

        return await reader.FindAsync(vm, cancellationToken) is not { } resource ? new Problem(ProblemTypes.UnknownVm).ToResult()
            : outcome.Value.IsDone ? TypedResults.Ok(resource)
            : TypedResults.Accepted(Routes.Vm(vm), resource);
    }

    private static async Task<Results<Ok<VmResource>, ProblemHttpResult>> RebuildAsync(
        string vm,
        RebuildRequest request,
        ClaimsPrincipal user,
        StoreWriter writer,
        VmLifeCommands commands,
        VmReader reader,
        CancellationToken cancellationToken)
    {
        var errors = new ValidationErrors();
        MigrationValidator.CheckId(request.Host, "$.host", errors);
        MigrationValidator.CheckReason(request.Reason, isNeeded: true, errors);
        if (errors.TryGetProblem(out var invalid))
        {
            return invalid.ToResult();
        }

        var actor = user.Actor();
        var outcome = await writer.ExecuteAsync(scope => commands.RebuildAsync(scope, vm, request, actor), cancellationToken);
        return outcome.IsRefused ? outcome.Problem.ToResult()
            : await reader.FindAsync(vm, cancellationToken) is { } resource ? TypedResults.Ok(resource)
            : new Problem(ProblemTypes.UnknownVm).ToResult();
    }

    private static Problem? CheckReason(string reason)
    {
        var errors = new ValidationErrors();
        MigrationValidator.CheckReason(reason, isNeeded: true, errors);
        return errors.ToProblem();
    }
}
