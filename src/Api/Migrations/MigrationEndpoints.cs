using System.ComponentModel;
using System.Security.Claims;
using Fleet.Api.Lists;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Security;
using Fleet.Api.Startup;
using Fleet.Contracts;
using Fleet.Contracts.Migrations;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Migrations;

public static class MigrationEndpoints
{
    private static readonly string[] StoredStates =
    [
        MigrationStates.Preparing, MigrationStates.Switching, MigrationStates.Granted,
        MigrationStates.Completed, MigrationStates.Aborted, MigrationStates.Failed,
    ];

    public static void MapMigrations(this IEndpointRouteBuilder routes)
    {
        routes.MapPut("/migrations/{migration}", PutAsync)
            .RequireAuthorization(Scopes.MigrationsWrite)
            .WithName("PutMigration")
            .WithTags("Migrations")
            .WithSummary("Begin to migrate a VM")
            .WithDescription(
                "Repeating it changes nothing; the id of a migration that has ended never starts another. A VM has at most one active migration. "
                + "What is known to be in the way is told at once: `gate-denied` with `reasons`. For a parked VM this restores it, without a source.")
            .WithProblems(
                ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.UnknownVm, ProblemTypes.UnknownHost,
                ProblemTypes.MigrationExists, ProblemTypes.MigrationActive, ProblemTypes.GateDenied, ProblemTypes.Quarantined, ProblemTypes.ResetWanted);

        routes.MapGet("/migrations/{migration}", GetAsync)
            .RequireAuthorization(Scopes.Read)
            .WithName("GetMigration")
            .WithTags("Migrations")
            .WithSummary("One migration")
            .WithDescription("With `wait` the answer comes once anything of it has changed or it has ended, or when the time is up: then with what is.")
            .WithProblems(ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.UnknownMigration);

        routes.MapGet("/migrations", ListAsync)
            .RequireAuthorization(Scopes.Read)
            .WithName("ListMigrations")
            .WithTags("Migrations")
            .WithSummary("The migrations, by id")
            .WithProblems(ProblemTypes.InvalidRequest);

        routes.MapPost("/migrations/{migration}/switchover", SwitchoverAsync)
            .RequireAuthorization(Scopes.MigrationsWrite)
            .WithName("SwitchOver")
            .WithTags("Migrations")
            .WithSummary("Ask for the right to resume on the target")
            .WithDescription(
                "Only once the source's guest is paused and the stream has ended. 200: the permit; 202: not yet, ask again, it joins what is under way. "
                + "Repeating it returns the same permit. It is the target's agent that resumes the guest. "
                + "`sourceFenced` asserts that the source is dead and has not run since the stream ended: it needs the scope `migrations:fence` and a "
                + "reason, and is refused while that host's agent is heard, and for attachments whose stream neither fails on unreadable pages nor declares them.")
            .Produces<MigrationResource>(StatusCodes.Status202Accepted)
            .WithProblems(
                ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.UnknownMigration, ProblemTypes.GateDenied,
                ProblemTypes.MigrationEnded, ProblemTypes.Quarantined, ProblemTypes.HostOnline, ProblemTypes.FenceRefused, ProblemTypes.Stopping);

        routes.MapPost("/migrations/{migration}/complete", CompleteAsync)
            .RequireAuthorization(Scopes.MigrationsWrite)
            .WithName("CompleteMigration")
            .WithTags("Migrations")
            .WithSummary("End a migration whose guest runs on the target")
            .WithDescription("Only after the target's agent has reported that it lifted its barrier. Then the source's VMM may be destroyed.")
            .WithProblems(ProblemTypes.InvalidId, ProblemTypes.UnknownMigration, ProblemTypes.NotLifted, ProblemTypes.MigrationEnded);

        routes.MapPost("/migrations/{migration}/abort", AbortAsync)
            .RequireAuthorization(Scopes.MigrationsWrite)
            .WithName("AbortMigration")
            .WithTags("Migrations")
            .WithSummary("Give a migration up")
            .WithDescription(
                "200: it has ended, the VM stays with its source. 202 after the grant: the target is asked to renounce; until it has, the VM is its. "
                + "`targetFenced` asserts that the target is dead and never lifted its barrier: it needs the scope `migrations:fence`, and is refused "
                + "while that host's agent is heard.")
            .Produces<MigrationResource>(StatusCodes.Status202Accepted)
            .WithProblems(
                ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.UnknownMigration,
                ProblemTypes.MigrationEnded, ProblemTypes.AlreadyLifted, ProblemTypes.HostOnline, ProblemTypes.Quarantined);
    }

    private static async Task<Results<Ok<MigrationResource>, Created<MigrationResource>, ProblemHttpResult>> PutAsync(
        string migration,
        MigrationRequest request,
        ClaimsPrincipal user,
        StoreWriter writer,
        MigrationCommands commands,
        MigrationReader reader,
        IOptions<FleetOptions> options,
        CancellationToken cancellationToken)
    {
        if (MigrationValidator.Validate(request) is { } invalid)
        {
            return invalid.ToResult();
        }

        var (actor, lifetime) = (user.Actor(), options.Value.MigrationLifetime);
        var outcome = await writer.ExecuteAsync(scope => commands.PutAsync(scope, migration, request, actor, lifetime), cancellationToken);
        if (outcome.IsRefused)
        {
            return outcome.Problem.ToResult();
        }

        var resource = (await reader.FindAsync(migration, cancellationToken))!;
        return outcome.Value.Created ? TypedResults.Created(Routes.Migration(migration), resource) : TypedResults.Ok(resource);
    }

    private static async Task<Results<Ok<MigrationResource>, ProblemHttpResult>> GetAsync(
        string migration,
        HttpContext http,
        MigrationReader reader,
        IHostApplicationLifetime lifetime,
        [Description("Longest time to wait for a change, such as 30s; at most 60s.")] string? wait = null)
    {
        var errors = new ValidationErrors();
        var duration = Waits.Read(wait, errors);
        if (errors.TryGetProblem(out var problem))
        {
            return problem.ToResult();
        }

        using var stop = CancellationTokenSource.CreateLinkedTokenSource(http.RequestAborted, lifetime.ApplicationStopping);
        MigrationResource? resource;
        try
        {
            resource = await reader.WaitAsync(migration, duration, HasMoved, stop.Token);
        }
        catch (OperationCanceledException) when (!http.RequestAborted.IsCancellationRequested)
        {
            resource = await reader.FindAsync(migration, http.RequestAborted);
        }

        return resource is null ? new Problem(ProblemTypes.UnknownMigration).ToResult() : TypedResults.Ok(resource);
    }

    private static async Task<Results<Ok<ItemList<MigrationResource>>, ProblemHttpResult>> ListAsync(
        [AsParameters] ListQuery list,
        MigrationReader reader,
        CancellationToken cancellationToken,
        [Description("Only migrations of this VM.")] string? vm = null,
        [Description("Only migrations in this state; `preparing` includes `ready`.")] string? state = null)
    {
        var errors = new ValidationErrors();
        var limit = list.ReadLimit(errors);
        var after = Cursor.ReadText(list.After, errors) ?? string.Empty;
        if (vm is not null)
        {
            MigrationValidator.CheckId(vm, "vm", errors);
        }

        if (state is not null && !StoredStates.Contains(state))
        {
            errors.Add("state", $"One of {string.Join(", ", StoredStates)}.");
        }

        return errors.TryGetProblem(out var problem)
            ? problem.ToResult()
            : TypedResults.Ok(await reader.ListAsync(after, limit, vm, state, cancellationToken));
    }

    private static async Task<Results<Ok<Permit>, Accepted<MigrationResource>, ProblemHttpResult>> SwitchoverAsync(
        string migration,
        SwitchoverRequest? request,
        HttpContext http,
        ClaimsPrincipal user,
        StoreWriter writer,
        MigrationCommands commands,
        MigrationReader reader,
        IOptions<FleetOptions> options,
        IHostApplicationLifetime lifetime,
        [Description("Longest time to wait for the permit, such as 10s; at most 60s.")] string? wait = null)
    {
        request ??= new SwitchoverRequest();
        var errors = new ValidationErrors();
        var duration = Waits.Read(wait, errors);
        MigrationValidator.CheckReason(request.Reason, request.SourceFenced, errors);
        if (errors.TryGetProblem(out var invalid))
        {
            return invalid.ToResult();
        }

        if (request.SourceFenced && !user.Has(Scopes.MigrationsFence))
        {
            return NeedsFence().ToResult();
        }

        var (actor, switching) = (user.Actor(), options.Value.SwitchoverLifetime);
        var outcome = await writer.ExecuteAsync(
            scope => commands.SwitchoverAsync(scope, migration, request, actor, switching), http.RequestAborted);
        if (outcome.IsRefused)
        {
            return outcome.Problem.ToResult();
        }

        using var stop = CancellationTokenSource.CreateLinkedTokenSource(http.RequestAborted, lifetime.ApplicationStopping);
        try
        {
            var resource = (await reader.WaitAsync(migration, duration, (_, now) => now.State != MigrationStates.Switching, stop.Token))!;
            return resource switch
            {
                { Permit: { } permit } => TypedResults.Ok(permit),
                { State: MigrationStates.Switching } => TypedResults.Accepted(Routes.Migration(migration), resource),
                _ => new Problem(ProblemTypes.GateDenied, $"It is {resource.State}.", Members: new Dictionary<string, object?> { ["reasons"] = resource.Reasons }).ToResult(),
            };
        }
        catch (OperationCanceledException) when (!http.RequestAborted.IsCancellationRequested)
        {
            http.Response.Headers.RetryAfter = "1";
            return new Problem(ProblemTypes.Stopping).ToResult();
        }
    }

    private static async Task<Results<Ok<MigrationResource>, ProblemHttpResult>> CompleteAsync(
        string migration, ClaimsPrincipal user, StoreWriter writer, MigrationReader reader, CancellationToken cancellationToken)
    {
        var actor = user.Actor();
        var outcome = await writer.ExecuteAsync(scope => MigrationCommands.CompleteAsync(scope, migration, actor), cancellationToken);
        return outcome.IsRefused ? outcome.Problem.ToResult() : TypedResults.Ok((await reader.FindAsync(migration, cancellationToken))!);
    }

    private static async Task<Results<Ok<MigrationResource>, Accepted<MigrationResource>, ProblemHttpResult>> AbortAsync(
        string migration,
        AbortRequest request,
        ClaimsPrincipal user,
        StoreWriter writer,
        MigrationCommands commands,
        MigrationReader reader,
        CancellationToken cancellationToken)
    {
        var errors = new ValidationErrors();
        MigrationValidator.CheckReason(request.Reason, isNeeded: true, errors);
        if (errors.TryGetProblem(out var invalid))
        {
            return invalid.ToResult();
        }

        if (request.TargetFenced && !user.Has(Scopes.MigrationsFence))
        {
            return NeedsFence().ToResult();
        }

        var actor = user.Actor();
        var outcome = await writer.ExecuteAsync(scope => commands.AbortAsync(scope, migration, request, actor), cancellationToken);
        if (outcome.IsRefused)
        {
            return outcome.Problem.ToResult();
        }

        var resource = (await reader.FindAsync(migration, cancellationToken))!;
        return resource.State == MigrationStates.Granted
            ? TypedResults.Accepted(Routes.Migration(migration), resource)
            : TypedResults.Ok(resource);
    }

    internal static Problem NeedsFence() => new(ProblemTypes.Forbidden, "The override needs the scope migrations:fence.");

    private static bool HasMoved(MigrationResource first, MigrationResource now) =>
        now.State is MigrationStates.Completed or MigrationStates.Aborted or MigrationStates.Failed
        || (now with { Reasons = first.Reasons }) != first
        || !now.Reasons.SequenceEqual(first.Reasons);
}
