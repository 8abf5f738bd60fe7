using System.Security.Claims;
using Fleet.Api.Lists;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Contracts.Security;
using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Security;

/// <summary>POST /v1/hosts/{host}/credential: an agent puts a new secret of its own making in the place of its present one.</summary>
public static class Rotation
{
    /// <summary>How long the replaced credential stays good: what is under way with it ends well, what is repeated is answered.</summary>
    internal static readonly TimeSpan Overlap = TimeSpan.FromMinutes(5);

    public static void MapRotation(this IEndpointRouteBuilder routes) =>
        routes.MapPost("/hosts/{host}/credential", RotateAsync)
            .RequireOwnAgent()
            .WithName("RotateCredential")
            .WithTags("Agents")
            .WithSummary("Replace the agent's credential")
            .WithDescription(
                "Both credentials are good for five minutes. Repeating it with the same new one is answered alike, whether it is sent with the old one or with "
                + "the new one; a credential that has been replaced cannot be replaced by yet another one.")
            .WithProblems(
                ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.CredentialReplaced, ProblemTypes.CredentialExists);

    private static async Task<Results<Ok<RotateResult>, ProblemHttpResult>> RotateAsync(
        string host,
        RotateRequest request,
        ClaimsPrincipal user,
        StoreWriter writer,
        CredentialStore credentials,
        ILogger<CredentialStore> logger,
        CancellationToken cancellationToken)
    {
        var errors = new ValidationErrors();
        CredentialForm.Check(request.CredentialId, request.CredentialHash, errors);
        if (errors.TryGetProblem(out var invalid))
        {
            return invalid.ToResult();
        }

        var present = user.Actor();
        var outcome = await writer.ExecuteAsync(scope => ReplaceAsync(scope, host, present, request), cancellationToken);
        if (outcome.IsRefused)
        {
            return outcome.Problem.ToResult();
        }

        credentials.Forget(present);
        credentials.Forget(request.CredentialId);
        SecurityLog.Rotated(logger, host, present, request.CredentialId);
        return TypedResults.Ok(outcome.Value);
    }

    private static async Task<Outcome<RotateResult>> ReplaceAsync(WriteScope scope, string host, string present, RotateRequest request)
    {
        // Looked at again here: it may have been revoked while the command waited its turn.
        if (await scope.Db.Credentials.FindAsync(present) is not { } old || !Credential.From(old).IsValidAt(scope.Now))
        {
            return ProblemTypes.Unauthenticated;
        }

        var known = await scope.Db.Credentials.FindAsync(request.CredentialId);
        if (known is not null && (known.Host != host || !CredentialStore.HashEquals(known.Hash, request.CredentialHash)))
        {
            return ProblemTypes.CredentialExists;
        }

        if (known is not null)
        {
            // The answer was lost: asked with the old one, or already with the new one.
            return known == old ? new RotateResult(known.Id, null)
                : old.ReplacedBy == known.Id ? new RotateResult(known.Id, old.ExpiresAt?.ToTime())
                : ProblemTypes.CredentialExists;
        }

        if (old.ReplacedBy is not null)
        {
            return ProblemTypes.CredentialReplaced;
        }

        // Each rotation clears away what earlier ones left, so that rotating at will does not fill the store.
        var spent = await scope.Db.Credentials
            .Where(row => row.Host == host && row.ReplacedBy != null && row.ExpiresAt <= scope.Now)
            .ToListAsync();
        scope.Db.Credentials.RemoveRange(spent.Where(row => row != old));

        var revision = scope.Change(ChangeKinds.CredentialRotated, ChangeResources.Credential(request.CredentialId), present, $"replaces {present} of {host}");
        old.ReplacedBy = request.CredentialId;
        old.ExpiresAt = Math.Min(old.ExpiresAt ?? long.MaxValue, scope.Now + (long)Overlap.TotalMilliseconds);
        old.Version = revision;
        scope.Db.Credentials.Add(CredentialForm.OfAgent(host, request.CredentialId, request.CredentialHash, scope.Now, revision));
        return new RotateResult(request.CredentialId, old.ExpiresAt?.ToTime());
    }
}
