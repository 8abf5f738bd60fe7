namespace Fleet.Api.Security;

/// <summary>Section <c>Fleet:Jwt</c>: tokens of an identity provider are taken as well. Off unless one of the first two is set.</summary>
public sealed class JwtOptions
{
    /// <summary>Address of the provider; keys and issuer come from its discovery document (OpenID Connect Discovery 1.0).</summary>
    public string? Authority { get; set; }

    /// <summary>Or a file with its public keys, a JSON Web Key Set (RFC 7517). Read when the program starts.</summary>
    public string? SigningKeys { get; set; }

    /// <summary>What the tokens' <c>aud</c> must name. Needed.</summary>
    public string? Audience { get; set; }

    /// <summary>What the tokens' <c>iss</c> must be. Needed with a key file; otherwise the discovery document's.</summary>
    public string? Issuer { get; set; }

    /// <summary>The claim with the scopes: one text separated by blanks, or a list. Names that are not ours mean nothing.</summary>
    public string ScopeClaim { get; set; } = "scope";

    public bool IsOn => Authority is not null || SigningKeys is not null;

    internal IEnumerable<string> Errors()
    {
        if (!IsOn)
        {
            yield break;
        }

        if (Authority is not null && SigningKeys is not null)
        {
            yield return "Set Fleet:Jwt:Authority or Fleet:Jwt:SigningKeys, not both.";
        }

        if (Authority is not null
            && !(Uri.TryCreate(Authority, UriKind.Absolute, out var uri) && (uri.Scheme == Uri.UriSchemeHttps || (uri.Scheme == Uri.UriSchemeHttp && uri.IsLoopback))))
        {
            yield return "Fleet:Jwt:Authority must be an https address: whoever can change its answer makes tokens.";
        }

        if (string.IsNullOrWhiteSpace(Audience))
        {
            yield return "Fleet:Jwt:Audience is needed: a token that was made for something else must not open this.";
        }

        if (SigningKeys is not null && string.IsNullOrWhiteSpace(Issuer))
        {
            yield return "Fleet:Jwt:Issuer is needed with Fleet:Jwt:SigningKeys.";
        }

        if (string.IsNullOrWhiteSpace(ScopeClaim))
        {
            yield return "Fleet:Jwt:ScopeClaim is empty.";
        }
    }
}
