using System.Security.Claims;
using Fleet.Api.Hosts;
using Fleet.Api.Lists;
using Fleet.Api.Problems;
using Fleet.Contracts;
using Fleet.Contracts.Security;
using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Http.HttpResults;
using Fleet.Api.OpenApi;

namespace Fleet.Api.Security;

/// <summary>POST /v1/join-tokens: the right to enrol one agent for one host; also what makes a host known.</summary>
public static class JoinTokens
{
    private static readonly TimeSpan Default = TimeSpan.FromHours(1);
    private static readonly TimeSpan Maximum = TimeSpan.FromDays(7);

    public static void MapJoinTokens(this IEndpointRouteBuilder routes) =>
        routes.MapPost("/join-tokens", CreateAsync)
            .RequireAuthorization(Scopes.HostsWrite)
            .WithName("CreateJoinToken")
            .WithTags("Security")
            .WithSummary("Make a join token for a host")
            .WithDescription("Single use. The token is shown once, in this answer, and stored only as a hash. Makes the host known, so that VMs can be placed on it.")
            .WithProblems(ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody);

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
        var expires = await writer.ExecuteAsync(
            async scope =>
            {
                await HostRows.EnsureAsync(scope, request.Host, user.Actor());
                var expiresAt = scope.Now + (long)lifetime.TotalMilliseconds;
                var revision = scope.Change(ChangeKinds.JoinTokenCreated, ChangeResources.JoinToken(id), user.Actor());
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
        return TypedResults.Created((string?)null, new JoinTokenCreated(id, request.Host, token, expires.ToTime()));
    }
}
