using System.Net.Http.Headers;
using System.Text.Encodings.Web;
using Fleet.Api.Problems;
using Fleet.Api.Security.Limits;
using Fleet.Api.Startup;
using Fleet.Contracts.Security;
using Microsoft.AspNetCore.Authentication;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Security;

/// <summary><c>Authorization: Bearer</c> with a Fleet token, or, where that is set up, with a token of the identity provider.</summary>
public sealed class BearerHandler(
    IOptionsMonitor<AuthenticationSchemeOptions> options,
    ILoggerFactory logger,
    UrlEncoder encoder,
    CredentialStore credentials,
    IOptions<FleetOptions> fleet,
    RateLimits limits,
    Refusals refusals)
    : AuthenticationHandler<AuthenticationSchemeOptions>(options, logger, encoder)
{
    protected override async Task<AuthenticateResult> HandleAuthenticateAsync()
    {
        if (!AuthenticationHeaderValue.TryParse(Request.Headers.Authorization, out var header)
            || !string.Equals(header.Scheme, Principals.Scheme, StringComparison.OrdinalIgnoreCase)
            || header.Parameter is null)
        {
            return AuthenticateResult.NoResult();
        }

        if (fleet.Value.Jwt.IsOn && !header.Parameter.StartsWith(TokenText.Prefix, StringComparison.Ordinal))
        {
            return await AuthenticateExternalAsync(fleet.Value.Jwt);
        }

        var credential = await credentials.FindAsync(header.Parameter, Context.RequestAborted);
        return credential is null
            ? AuthenticateResult.Fail("Unknown, expired or revoked.")
            : AuthenticateResult.Success(new AuthenticationTicket(Principals.Of(credential), Scheme.Name));
    }

    protected override async Task HandleChallengeAsync(AuthenticationProperties properties)
    {
        refusals.Add(Context, ProblemTypes.Unauthenticated.Code);
        if (await limits.RefuseFailureAsync(Context))
        {
            return;
        }

        Response.Headers.WWWAuthenticate = Principals.Scheme;
        await new Problem(ProblemTypes.Unauthenticated).WriteAsync(Context);
    }

    protected override Task HandleForbiddenAsync(AuthenticationProperties properties)
    {
        var wrongHost = Context.User.Has(Scopes.Agent) && Context.GetEndpoint()?.Metadata.GetMetadata<AgentRoute>() is not null;
        var type = wrongHost ? ProblemTypes.WrongHost : ProblemTypes.Forbidden;
        refusals.Add(Context, type.Code);
        return new Problem(type).WriteAsync(Context);
    }

    private async Task<AuthenticateResult> AuthenticateExternalAsync(JwtOptions options)
    {
        var result = await Context.AuthenticateAsync(JwtIdentity.Scheme);
        return result.Succeeded && JwtIdentity.ToPrincipal(result.Principal, options) is { } principal
            ? AuthenticateResult.Success(new AuthenticationTicket(principal, Scheme.Name))
            : AuthenticateResult.Fail("Not a token of the identity provider, or not for this.");
    }
}
