using System.ComponentModel;
using System.Security.Claims;
using Fleet.Api.Agents;
using Fleet.Api.Lists;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Security;
using Fleet.Contracts;
using Fleet.Contracts.Vms;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Http.HttpResults;

namespace Fleet.Api.Vms;

public static class VmEndpoints
{
    public static void MapVms(this IEndpointRouteBuilder routes)
    {
        routes.MapPut("/vms/{vm}", PutAsync)
            .RequireAuthorization(Scopes.VmsWrite)
            .WithName("PutVm")
            .WithTags("VMs")
            .WithSummary("Create a VM, or change its memory or attachment")
            .WithDescription("Repeating it changes nothing. The host never changes this way. No new VM is placed on a drained host; VMs that are there already can be changed. A layout that drops poisoned pages needs the scope `pages:clear`. `If-Match` is optional.")
            .WithMetadata(new TakesIfMatch())
            .WithProblems(
                ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody,
                ProblemTypes.UnknownHost, ProblemTypes.HostDrained, ProblemTypes.UseMigration, ProblemTypes.Stale, ProblemTypes.MigrationSwitching, ProblemTypes.Quarantined);

        routes.MapGet("/vms/{vm}", GetAsync)
            .RequireAuthorization(Scopes.Read)
            .WithName("GetVm")
            .WithTags("VMs")
            .WithSummary("One VM, with what its host enforces")
            .WithDescription("With `wait` the answer comes once the host has confirmed the present generation as armed, or when the time is up: then with what is.")
            .WithProblems(ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.UnknownVm);

        routes.MapGet("/vms", ListAsync)
            .RequireAuthorization(Scopes.Read)
            .WithName("ListVms")
            .WithTags("VMs")
            .WithSummary("The VMs, by id")
            .WithProblems(ProblemTypes.InvalidRequest);

        routes.MapDelete("/vms/{vm}", DeleteAsync)
            .RequireAuthorization(Scopes.VmsWrite)
            .WithName("DeleteVm")
            .WithTags("VMs")
            .WithSummary("Forget a VM and its poisoned pages")
            .WithDescription("Its host keeps armed what it armed for as long as the VMM lives. A VM created again under the same id starts with new numbers and an empty set, so dropping poisoned pages needs the scope pages:clear as well. `If-Match` is optional.")
            .WithMetadata(new TakesIfMatch())
            .WithProblems(ProblemTypes.InvalidId, ProblemTypes.UnknownVm, ProblemTypes.Stale, ProblemTypes.MigrationSwitching, ProblemTypes.Quarantined);
    }

    private static async Task<Results<Ok<VmResource>, Created<VmResource>, ProblemHttpResult>> PutAsync(
        string vm, VmRequest request, HttpContext http, ClaimsPrincipal user, StoreWriter writer, VmReader reader, CancellationToken cancellationToken)
    {
        if (VmValidator.Validate(request) is { } invalid)
        {
            return invalid.ToResult();
        }

        var definition = VmDefinition.From(vm, request, user.Actor(), user.Has(Scopes.PagesClear), IfMatch.Of(http.Request));
        var outcome = await writer.ExecuteAsync(scope => VmCommands.PutAsync(scope, definition), cancellationToken);
        if (outcome.IsRefused)
        {
            return outcome.Problem.ToResult();
        }

        if (await reader.FindAsync(vm, cancellationToken) is not { } resource)
        {
            return new Problem(ProblemTypes.UnknownVm, "It was deleted again at once.").ToResult();
        }

        http.Response.Headers.ETag = IfMatch.ETagOf(resource.Version);
        return outcome.Value.Created ? TypedResults.Created(Routes.Vm(vm), resource) : TypedResults.Ok(resource);
    }

    private static async Task<Results<Ok<VmResource>, ProblemHttpResult>> GetAsync(
        string vm,
        HttpContext http,
        VmReader reader,
        IHostApplicationLifetime lifetime,
        [Description("Longest time to wait for enforcement, such as 30s; at most 60s.")] string? wait = null)
    {
        var errors = new ValidationErrors();
        var duration = Waits.Read(wait, errors);
        if (errors.TryGetProblem(out var problem))
        {
            return problem.ToResult();
        }

        using var stop = CancellationTokenSource.CreateLinkedTokenSource(http.RequestAborted, lifetime.ApplicationStopping);
        VmResource? resource;
        try
        {
            resource = await reader.WaitAsync(vm, duration, stop.Token);
        }
        catch (OperationCanceledException) when (!http.RequestAborted.IsCancellationRequested)
        {
            resource = await reader.FindAsync(vm, http.RequestAborted);
        }

        if (resource is null)
        {
            return new Problem(ProblemTypes.UnknownVm).ToResult();
        }

        http.Response.Headers.ETag = IfMatch.ETagOf(resource.Version);
        return TypedResults.Ok(resource);
    }

    private static async Task<Results<Ok<ItemList<VmResource>>, ProblemHttpResult>> ListAsync(
        [AsParameters] ListQuery list, VmReader reader, CancellationToken cancellationToken)
    {
        var errors = new ValidationErrors();
        var limit = list.ReadLimit(errors);
        var after = Cursor.ReadText(list.After, errors) ?? string.Empty;
        return errors.TryGetProblem(out var problem)
            ? problem.ToResult()
            : TypedResults.Ok(await reader.ListAsync(after, limit, Cursor.Of, cancellationToken));
    }

    private static async Task<Results<NoContent, ProblemHttpResult>> DeleteAsync(
        string vm, HttpContext http, ClaimsPrincipal user, StoreWriter writer, DigestCache digests, CancellationToken cancellationToken)
    {
        var actor = user.Actor();
        var mayClear = user.Has(Scopes.PagesClear);
        var ifMatch = IfMatch.Of(http.Request);
        var outcome = await writer.ExecuteAsync(scope => VmCommands.DeleteAsync(scope, vm, actor, mayClear, ifMatch), cancellationToken);
        if (outcome.IsRefused)
        {
            return outcome.Problem.ToResult();
        }

        digests.Forget(vm);
        return TypedResults.NoContent();
    }
}
