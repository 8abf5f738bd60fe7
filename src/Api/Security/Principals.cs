using System.Globalization;
using System.Security.Claims;

namespace Fleet.Api.Security;

public static class Principals
{
    public const string Scheme = "Bearer";
    private const string CredentialClaim = "credential";
    private const string ScopeClaim = "scope";
    private const string HostClaim = "host";
    private const string ExpiresClaim = "expires";

    public static ClaimsPrincipal Of(Credential credential) => Of(credential.Id, credential.Scopes, credential.Host, credential.ExpiresAt);

    /// <param name="actor">Names whoever it is in the change log.</param>
    /// <param name="host">The host that an agent's credential is bound to.</param>
    /// <param name="expiresAt">Unix ms; null when never.</param>
    public static ClaimsPrincipal Of(string actor, IEnumerable<string> scopes, string? host, long? expiresAt)
    {
        var claims = new List<Claim> { new(CredentialClaim, actor) };
        claims.AddRange(scopes.Select(scope => new Claim(ScopeClaim, scope)));
        if (host is not null)
        {
            claims.Add(new Claim(HostClaim, host));
        }

        if (expiresAt is { } expires)
        {
            claims.Add(new Claim(ExpiresClaim, expires.ToString(CultureInfo.InvariantCulture)));
        }

        return new ClaimsPrincipal(new ClaimsIdentity(claims, Scheme));
    }

    /// <summary>Who did it, for the change log: the credential's id, or <c>jwt:</c> and the subject.</summary>
    public static string Actor(this ClaimsPrincipal user) => user.FindFirstValue(CredentialClaim) ?? "anonymous";

    /// <summary>Until when this holds, unix ms; null when for ever, and for nobody.</summary>
    public static long? ExpiresAt(this ClaimsPrincipal user) =>
        user.FindFirstValue(ExpiresClaim) is { } text ? long.Parse(text, CultureInfo.InvariantCulture) : null;

    public static string? AgentHost(this ClaimsPrincipal user) => user.FindFirstValue(HostClaim);

    public static bool Has(this ClaimsPrincipal user, string scope) =>
        user.HasClaim(ScopeClaim, scope) || (scope != Scopes.Agent && user.HasClaim(ScopeClaim, Scopes.Admin));
}
