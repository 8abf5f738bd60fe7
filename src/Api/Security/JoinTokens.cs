using System.ComponentModel;
using System.Security.Claims;
using Fleet.Api.Hosts;
using Fleet.Api.Lists;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Contracts;
using Fleet.Contracts.Security;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Security;

/// <summary>/v1/join-tokens: the right to enrol one agent for one host; also what makes a host known.</summary>
public static class JoinTokens
{
    private static readonly TimeSpan Default = TimeSpan.FromHours(1);
    private static readonly TimeSpan Maximum = TimeSpan.FromDays(7);

    public static void MapJoinTokens(this IEndpointRouteBuilder routes)
    {
        routes.MapPost("/join-tokens", CreateAsync)
            .RequireAuthorization(Scopes.HostsWrite)
            .WithName("CreateJoinToken")
            .WithTags("Security")
            .WithSummary("Make a join token for a host")
            .WithDescription("Single use. The token is shown once, in this answer, and stored only as a hash. Makes the host known, so that VMs can be placed on it.")
            .WithProblems(ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody);

        routes.MapGet("/join-tokens", ListAsync)
            .RequireAuthorization(Scopes.HostsWrite)
            .WithName("ListJoinTokens")
            .WithTags("Security")
            .WithSummary("The join tokens, by id; used and expired ones too")
            .WithProblems(ProblemTypes.InvalidRequest);

        routes.MapGet("/join-tokens/{token}", GetAsync)
            .RequireAuthorization(Scopes.HostsWrite)
            .WithName("GetJoinToken")
            .WithTags("Security")
            .WithSummary("One join token")
            .WithProblems(ProblemTypes.UnknownToken);

        routes.MapDelete("/join-tokens/{token}", RevokeAsync)
            .RequireAuthorization(Scopes.HostsWrite)
            .WithName("RevokeJoinToken")
            .WithTags("Security")
            .WithSummary("Revoke a join token")
            .WithDescription("Repeating it changes nothing. A credential that it was exchanged for stays good: revoke that at `/v1/tokens`. `If-Match` is optional.")
            .WithMetadata(new TakesIfMatch())
            .WithProblems(ProblemTypes.UnknownToken, ProblemTypes.Stale);
    }

    private static async Task<Results<Created<JoinTokenCreated>, ProblemHttpResult>> CreateAsync(
        JoinTokenRequest request, ClaimsPrincipal user, StoreWriter writer, CancellationToken cancellationToken)
    {
        var errors = new ValidationErrors();
        var lifetime = Default;
        if (!ResourceId.IsValid(request.Host))
        {
            errors.Add("$.host", $"An id of the form {ResourceId.Pattern}.");
        }

        if (request.ExpiresIn is not null
            && (!DurationText.TryParse(request.ExpiresIn, out lifetime) || lifetime <= TimeSpan.Zero || lifetime > Maximum))
        {
            errors.Add("$.expiresIn", "A duration such as 30m or 1h, at most 7d.");
        }

        if (errors.TryGetProblem(out var problem))
        {
            return problem.ToResult();
        }

        var token = TokenText.Create();
        TokenText.TryGetId(token, out var id);
        var actor = user.Actor();
        var expires = await writer.ExecuteAsync(
            async scope =>
            {
                await HostRows.EnsureAsync(scope, request.Host, actor);
                var expiresAt = scope.Now + (long)lifetime.TotalMilliseconds;
                var revision = scope.Change(ChangeKinds.JoinTokenCreated, ChangeResources.JoinToken(id), actor);
                scope.Db.JoinTokens.Add(new JoinTokenRow
                {
                    Id = id,
                    Hash = TokenText.Hash(token),
                    Host = request.Host,
                    CreatedAt = scope.Now,
                    ExpiresAt = expiresAt,
                    Version = revision,
                });
                return expiresAt;
            },
            cancellationToken);
        return TypedResults.Created(Routes.JoinToken(id), new JoinTokenCreated(id, request.Host, token, expires.ToTime()));
    }

    private static async Task<Results<Ok<ItemList<JoinTokenResource>>, ProblemHttpResult>> ListAsync(
        [AsParameters] ListQuery list,
        StoreContexts contexts,
        CancellationToken cancellationToken,
        [Description("Only join tokens for this host.")] string? host = null)
    {
        var errors = new ValidationErrors();
        var limit = list.ReadLimit(errors);
        var after = Cursor.ReadText(list.After, errors) ?? string.Empty;
        if (host is not null && !ResourceId.IsValid(host))
        {
            errors.Add("host", $"An id of the form {ResourceId.Pattern}.");
        }

        if (errors.TryGetProblem(out var problem))
        {
            return problem.ToResult();
        }

        await using var db = contexts.OpenReader();
        var rows = db.JoinTokens.Where(row => row.Id.CompareTo(after) > 0);
        rows = host is null ? rows : rows.Where(row => row.Host == host);
        var page = await rows.OrderBy(row => row.Id).Take(limit + 1).ToListAsync(cancellationToken);
        var next = page.Count > limit ? Cursor.Of(page[limit - 1].Id) : null;
        return TypedResults.Ok(new ItemList<JoinTokenResource>([.. page.Take(limit).Select(ToResource)], next));
    }

    private static async Task<Results<Ok<JoinTokenResource>, ProblemHttpResult>> GetAsync(
        string token, HttpContext http, StoreContexts contexts, CancellationToken cancellationToken)
    {
        await using var db = contexts.OpenReader();
        if (await db.JoinTokens.SingleOrDefaultAsync(row => row.Id == token, cancellationToken) is not { } row)
        {
            return new Problem(ProblemTypes.UnknownToken).ToResult();
        }

        http.Response.Headers.ETag = IfMatch.ETagOf(row.Version);
        return TypedResults.Ok(ToResource(row));
    }

    private static async Task<Results<NoContent, ProblemHttpResult>> RevokeAsync(
        string token, HttpContext http, ClaimsPrincipal user, StoreWriter writer, CancellationToken cancellationToken)
    {
        var (actor, ifMatch) = (user.Actor(), IfMatch.Of(http.Request));
        var outcome = await writer.ExecuteAsync<Outcome<Done>>(
            async scope =>
            {
                if (await scope.Db.JoinTokens.FindAsync(token) is not { } row)
                {
                    return ProblemTypes.UnknownToken;
                }

                if (row.RevokedAt is not null)
                {
                    return new Done();
                }

                if (!ifMatch.Matches(row.Version))
                {
                    return ProblemTypes.Stale;
                }

                row.Version = scope.Change(ChangeKinds.JoinTokenRevoked, ChangeResources.JoinToken(token), actor);
                row.RevokedAt = scope.Now;
                return new Done();
            },
            cancellationToken);
        return outcome.IsRefused ? outcome.Problem.ToResult() : TypedResults.NoContent();
    }

    private static JoinTokenResource ToResource(JoinTokenRow row) => new(
        row.Id, row.Host, row.CreatedAt.ToTime(), row.ExpiresAt.ToTime(), row.UsedAt?.ToTime(), row.CredentialId, row.RevokedAt?.ToTime(), row.Version);
}
