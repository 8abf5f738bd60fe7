using Fleet.Api.Agents;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Startup;
using Fleet.Contracts;
using Fleet.Contracts.Security;
using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Security;

/// <summary>POST /v1/agents/enroll: a join token is exchanged, once, for a credential that the agent made itself.</summary>
public static class Enrolment
{
    public static void MapEnrolment(this IEndpointRouteBuilder routes) =>
        routes.MapPost("/agents/enroll", EnrollAsync)
            .AllowAnonymous()
            .WithName("EnrollAgent")
            .WithTags("Agents")
            .WithSummary("Enrol a host agent")
            .WithDescription("The join token in the body is the authorization. Repeating it with the same credential is answered alike; with another one it is refused.")
            .WithMetadata(new RequestSizeLimit(RequestLimits.AnonymousBody))
            .WithProblems(ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.JoinTokenInvalid, ProblemTypes.JoinTokenUsed, ProblemTypes.CredentialExists);

    private static async Task<Results<Ok<EnrollResult>, ProblemHttpResult>> EnrollAsync(
        EnrollRequest request, StoreWriter writer, CredentialStore credentials, Contests contests, ILogger<CredentialStore> logger, CancellationToken cancellationToken)
    {
        if (Validate(request) is { } invalid)
        {
            return invalid.ToResult();
        }

        var outcome = await writer.ExecuteAsync(scope => ExchangeAsync(scope, request), cancellationToken);
        if (outcome.IsRefused)
        {
            return outcome.Problem.ToResult();
        }

        credentials.Forget(request.CredentialId);
        contests.Enrolled(request.Host);
        SecurityLog.AgentEnrolled(logger, request.Host, request.CredentialId);
        return TypedResults.Ok(outcome.Value);
    }

    private static Problem? Validate(EnrollRequest request)
    {
        var errors = new ValidationErrors();
        if (!ResourceId.IsValid(request.Host))
        {
            errors.Add("$.host", $"An id of the form {ResourceId.Pattern}.");
        }

        CredentialForm.Check(request.CredentialId, request.CredentialHash, errors);
        return errors.ToProblem();
    }

    private static async Task<Outcome<EnrollResult>> ExchangeAsync(WriteScope scope, EnrollRequest request)
    {
        if (!TokenText.TryGetId(request.JoinToken, out var id)
            || await scope.Db.JoinTokens.FindAsync(id) is not { } token
            || !CredentialStore.HashEquals(TokenText.Hash(request.JoinToken), token.Hash)
            || token.RevokedAt is not null
            || token.Host != request.Host)
        {
            return ProblemTypes.JoinTokenInvalid;
        }

        if (token.UsedAt is not null)
        {
            // Whoever asks again because the answer was lost gets it, however late.
            return token.CredentialId == request.CredentialId && CredentialStore.HashEquals(token.CredentialHash!, request.CredentialHash)
                ? new EnrollResult(token.Host)
                : ProblemTypes.JoinTokenUsed;
        }

        if (token.ExpiresAt <= scope.Now)
        {
            return ProblemTypes.JoinTokenInvalid;
        }

        if (await scope.Db.Credentials.AnyAsync(row => row.Id == request.CredentialId))
        {
            return ProblemTypes.CredentialExists;
        }

        var revision = scope.Change(ChangeKinds.AgentEnrolled, ChangeResources.Host(token.Host), token.Id);
        token.UsedAt = scope.Now;
        token.CredentialId = request.CredentialId;
        token.CredentialHash = request.CredentialHash;
        token.Version = revision;
        scope.Db.Credentials.Add(CredentialForm.OfAgent(token.Host, request.CredentialId, request.CredentialHash, scope.Now, revision));
        return new EnrollResult(token.Host);
    }
}
