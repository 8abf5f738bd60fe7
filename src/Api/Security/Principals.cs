using System.Security.Claims;

namespace Fleet.Api.Security;

public static class Principals
{
    public const string Scheme = "Bearer";
    private const string CredentialClaim = "credential";
    private const string ScopeClaim = "scope";
    private const string HostClaim = "host";

    public static ClaimsPrincipal Of(Credential credential)
    {
        var claims = new List<Claim> { new(CredentialClaim, credential.Id) };
        claims.AddRange(credential.Scopes.Select(scope => new Claim(ScopeClaim, scope)));
        if (credential.Host is not null)
        {
            claims.Add(new Claim(HostClaim, credential.Host));
        }

        return new ClaimsPrincipal(new ClaimsIdentity(claims, Scheme));
    }

    /// <summary>Who did it, for the change log: the credential's id.</summary>
    public static string Actor(this ClaimsPrincipal user) => user.FindFirstValue(CredentialClaim) ?? "anonymous";

    public static string? AgentHost(this ClaimsPrincipal user) => user.FindFirstValue(HostClaim);

    public static bool Has(this ClaimsPrincipal user, string scope) =>
        user.HasClaim(ScopeClaim, scope) || (scope != Scopes.Agent && user.HasClaim(ScopeClaim, Scopes.Admin));
}
