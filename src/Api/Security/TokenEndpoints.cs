using System.ComponentModel;
using System.Security.Claims;
using Fleet.Api.Agents.Push;
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

/// <summary>/v1/tokens: every credential, those of the agents included. Nobody but an administrator.</summary>
public static class TokenEndpoints
{
    public static void MapTokens(this IEndpointRouteBuilder routes)
    {
        routes.MapPost("/tokens", CreateAsync)
            .RequireAuthorization(Scopes.Admin)
            .WithName("CreateToken")
            .WithTags("Security")
            .WithSummary("Make a token")
            .WithDescription("The token is shown once, in this answer, and stored only as a hash. It cannot have a scope that its creator lacks, and never `agent`.")
            .WithProblems(ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody);

        routes.MapGet("/tokens", ListAsync)
            .RequireAuthorization(Scopes.Admin)
            .WithName("ListTokens")
            .WithTags("Security")
            .WithSummary("The tokens and the agents' credentials, by id")
            .WithProblems(ProblemTypes.InvalidRequest);

        routes.MapGet("/tokens/{token}", GetAsync)
            .RequireAuthorization(Scopes.Admin)
            .WithName("GetToken")
            .WithTags("Security")
            .WithSummary("One token or agent's credential")
            .WithProblems(ProblemTypes.UnknownToken);

        routes.MapDelete("/tokens/{token}", RevokeAsync)
            .RequireAuthorization(Scopes.Admin)
            .WithName("RevokeToken")
            .WithTags("Security")
            .WithSummary("Revoke a token or an agent's credential")
            .WithDescription(
                "At once and for good, and streams of the change log that it opened end; repeating it changes nothing. Of an agent's credential only this one is revoked, not the one in `replacedBy`; the "
                + "host's streams end, and an agent with another credential opens them again. What is armed stays armed. `If-Match` is optional.")
            .WithMetadata(new TakesIfMatch())
            .WithProblems(ProblemTypes.UnknownToken, ProblemTypes.LastAdmin, ProblemTypes.Stale);
    }

    private static async Task<Results<Created<TokenCreated>, ProblemHttpResult>> CreateAsync(
        TokenRequest request, ClaimsPrincipal user, StoreWriter writer, CancellationToken cancellationToken)
    {
        if (TokenValidator.Validate(request, user, out var lifetime) is { } invalid)
        {
            return invalid.ToResult();
        }

        var (token, actor) = (TokenText.Create(), user.Actor());
        TokenText.TryGetId(token, out var id);
        var expires = await writer.ExecuteAsync(
            scope => Task.FromResult(TokenCommands.Create(scope, id, TokenText.Hash(token), request, lifetime, actor)), cancellationToken);
        return TypedResults.Created(Routes.Token(id), new TokenCreated(id, request.Name, request.Scopes, token, expires.ToTime()));
    }

    private static async Task<Results<Ok<ItemList<TokenResource>>, ProblemHttpResult>> ListAsync(
        [AsParameters] ListQuery list,
        StoreContexts contexts,
        CredentialStore credentials,
        CancellationToken cancellationToken,
        [Description("Only `token`, or only `agent`.")] string? kind = null,
        [Description("Only credentials of this host's agent.")] string? host = null)
    {
        var errors = new ValidationErrors();
        var limit = list.ReadLimit(errors);
        var after = Cursor.ReadText(list.After, errors) ?? string.Empty;
        if (kind is not (null or TokenKinds.Token or TokenKinds.Agent))
        {
            errors.Add("kind", $"{TokenKinds.Token} or {TokenKinds.Agent}.");
        }

        if (host is not null && !ResourceId.IsValid(host))
        {
            errors.Add("host", $"An id of the form {ResourceId.Pattern}.");
        }

        if (errors.TryGetProblem(out var problem))
        {
            return problem.ToResult();
        }

        await using var db = contexts.OpenReader();
        var rows = db.Credentials.Where(row => row.Id.CompareTo(after) > 0);
        rows = kind is null ? rows : rows.Where(row => row.Host == null == (kind == TokenKinds.Token));
        rows = host is null ? rows : rows.Where(row => row.Host == host);
        var page = await rows.OrderBy(row => row.Id).Take(limit + 1).ToListAsync(cancellationToken);
        var next = page.Count > limit ? Cursor.Of(page[limit - 1].Id) : null;
        return TypedResults.Ok(new ItemList<TokenResource>([.. page.Take(limit).Select(row => ToResource(row, credentials))], next));
    }

    private static async Task<Results<Ok<TokenResource>, ProblemHttpResult>> GetAsync(
        string token, HttpContext http, StoreContexts contexts, CredentialStore credentials, CancellationToken cancellationToken)
    {
        await using var db = contexts.OpenReader();
        if (await db.Credentials.SingleOrDefaultAsync(row => row.Id == token, cancellationToken) is not { } row)
        {
            return new Problem(ProblemTypes.UnknownToken).ToResult();
        }

        http.Response.Headers.ETag = IfMatch.ETagOf(row.Version);
        return TypedResults.Ok(ToResource(row, credentials));
    }

    private static async Task<Results<NoContent, ProblemHttpResult>> RevokeAsync(
        string token,
        HttpContext http,
        ClaimsPrincipal user,
        StoreWriter writer,
        CredentialStore credentials,
        CredentialStreams streams,
        PushHub hub,
        ILogger<CredentialStore> logger,
        CancellationToken cancellationToken)
    {
        var (actor, ifMatch) = (user.Actor(), IfMatch.Of(http.Request));
        var outcome = await writer.ExecuteAsync(scope => TokenCommands.RevokeAsync(scope, token, actor, ifMatch), cancellationToken);
        if (outcome.IsRefused)
        {
            return outcome.Problem.ToResult();
        }

        credentials.Forget(token);
        streams.End(token);
        if (outcome.Value.Host is { } host)
        {
            // A stream was authorized when it was opened; whoever still has the right opens another.
            hub.EndOlder(host, long.MaxValue);
        }

        SecurityLog.Revoked(logger, token, actor);
        return TypedResults.NoContent();
    }

    private static TokenResource ToResource(CredentialRow row, CredentialStore credentials) => new(
        row.Id,
        row.Name,
        row.Host is null ? TokenKinds.Token : TokenKinds.Agent,
        row.Scopes.Split(' '),
        row.Host,
        row.CreatedAt.ToTime(),
        row.ExpiresAt?.ToTime(),
        row.RevokedAt?.ToTime(),
        (credentials.LastUse.TryGetValue(row.Id, out var used) ? used : row.LastUsedAt)?.ToTime(),
        row.ReplacedBy,
        row.Version);
}
