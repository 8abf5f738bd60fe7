using System.Security.Claims;

namespace Fleet.Api.Security;

public static class Principals
{
    public const string Scheme = "Bearer";
    private const string CredentialClaim = "credential";
    private const string ScopeClaim = "scope";
    private const string HostClaim = "host";

    public static ClaimsPrincipal Of(Credential credential) => Of(credential.Id, credential.Scopes, credential.Host);

    /// <param name="actor">Names whoever it is in the change log.</param>
    /// <param name="host">The host that an agent's credential is bound to.</param>
    public static ClaimsPrincipal Of(string actor, IEnumerable<string> scopes, string? host)
    {
        var claims = new List<Claim> { new(CredentialClaim, actor) };
        claims.AddRange(scopes.Select(scope => new Claim(ScopeClaim, scope)));
        if (host is not null)
        {
            claims.Add(new Claim(HostClaim, host));
        }

        return new ClaimsPrincipal(new ClaimsIdentity(claims, Scheme));
    }

    /// <summary>Who did it, for the change log: the credential's id, or <c>jwt:</c> and the subject.</summary>
    public static string Actor(this ClaimsPrincipal user) => user.FindFirstValue(CredentialClaim) ?? "anonymous";

    public static string? AgentHost(this ClaimsPrincipal user) => user.FindFirstValue(HostClaim);

    public static bool Has(this ClaimsPrincipal user, string scope) =>
        user.HasClaim(ScopeClaim, scope) || (scope != Scopes.Agent && user.HasClaim(ScopeClaim, Scopes.Admin));
}
