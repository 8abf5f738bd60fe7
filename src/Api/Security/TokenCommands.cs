using Fleet.Api.Lists;
using Fleet.Api.Problems;
using Fleet.Contracts.Security;
using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Security;

internal static class TokenCommands
{
    /// <returns>When it expires, unix ms.</returns>
    public static long Create(WriteScope scope, string id, string hash, TokenRequest request, TimeSpan lifetime, string actor)
    {
        var expiresAt = scope.Now + (long)lifetime.TotalMilliseconds;
        var scopes = string.Join(' ', request.Scopes);
        var revision = scope.Change(ChangeKinds.CredentialCreated, ChangeResources.Credential(id), actor, $"{request.Name}: {scopes}");
        scope.Db.Credentials.Add(new CredentialRow
        {
            Id = id,
            Hash = hash,
            Name = request.Name,
            Scopes = scopes,
            CreatedAt = scope.Now,
            ExpiresAt = expiresAt,
            Version = revision,
        });
        return expiresAt;
    }

    public static async Task<Outcome<Revoked>> RevokeAsync(WriteScope scope, string id, string actor, IfMatch ifMatch)
    {
        if (await scope.Db.Credentials.FindAsync(id) is not { } row)
        {
            return ProblemTypes.UnknownToken;
        }

        if (row.RevokedAt is not null)
        {
            return new Revoked(row.Host);
        }

        if (!ifMatch.Matches(row.Version))
        {
            return ProblemTypes.Stale;
        }

        if (IsAdmin(row) && Credential.From(row).IsValidAt(scope.Now) && !await AnotherAdminAsync(scope, id))
        {
            return ProblemTypes.LastAdmin;
        }

        row.Version = scope.Change(ChangeKinds.CredentialRevoked, ChangeResources.Credential(id), actor, row.Name);
        row.RevokedAt = scope.Now;
        return new Revoked(row.Host);
    }

    private static bool IsAdmin(CredentialRow row) => row.Host is null && row.Scopes.Split(' ').Contains(Scopes.Admin);

    private static async Task<bool> AnotherAdminAsync(WriteScope scope, string id) =>
        (await scope.Db.Credentials
            .AsNoTracking()
            .Where(row => row.Id != id && row.Host == null && row.RevokedAt == null && (row.ExpiresAt == null || row.ExpiresAt > scope.Now))
            .ToListAsync())
        .Exists(IsAdmin);
}

/// <param name="Host">Whose agent's credential it is; null for a token.</param>
public sealed record Revoked(string? Host);
