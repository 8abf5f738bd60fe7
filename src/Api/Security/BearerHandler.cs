using System.Net.Http.Headers;
using System.Text.Encodings.Web;
using Fleet.Api.Problems;
using Microsoft.AspNetCore.Authentication;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Security;

/// <summary>The one authentication scheme: <c>Authorization: Bearer fleet_…</c>.</summary>
public sealed class BearerHandler(
    IOptionsMonitor<AuthenticationSchemeOptions> options,
    ILoggerFactory logger,
    UrlEncoder encoder,
    CredentialStore credentials)
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

        var credential = await credentials.FindAsync(header.Parameter, Context.RequestAborted);
        return credential is null
            ? AuthenticateResult.Fail("Unknown, expired or revoked.")
            : AuthenticateResult.Success(new AuthenticationTicket(Principals.Of(credential), Scheme.Name));
    }

    protected override Task HandleChallengeAsync(AuthenticationProperties properties)
    {
        Response.Headers.WWWAuthenticate = Principals.Scheme;
        return new Problem(ProblemTypes.Unauthenticated).WriteAsync(Context);
    }

    protected override Task HandleForbiddenAsync(AuthenticationProperties properties)
    {
        var wrongHost = Context.User.Has(Scopes.Agent) && Context.GetEndpoint()?.Metadata.GetMetadata<AgentRoute>() is not null;
        return new Problem(wrongHost ? ProblemTypes.WrongHost : ProblemTypes.Forbidden).WriteAsync(Context);
    }
}
