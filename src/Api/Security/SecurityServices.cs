using Fleet.Api.Security.Limits;
using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.RateLimiting;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Security;

public static class SecurityServices
{
    public static void AddFleetSecurity(this IServiceCollection services)
    {
        services.AddSingleton<CredentialStore>();
        services.AddSingleton<CredentialStreams>();
        services.AddSingleton<Refusals>();
        services.AddHostedService(provider => provider.GetRequiredService<Refusals>());
        services.AddSingleton<RateLimits>();
        services.AddSingleton<IConfigureOptions<RateLimiterOptions>>(provider => provider.GetRequiredService<RateLimits>());
        services.AddRateLimiter(_ => { });
        services.AddHostedService<AdminToken>();
        services.AddHostedService<LastUse>();

        // The core only: AddAuthentication would bring data protection, which writes key files that nothing here uses.
        services.AddWebEncoders();
        services.AddTransient<BearerHandler>();
        services.AddAuthenticationCore(options =>
        {
            options.DefaultScheme = Principals.Scheme;
            options.AddScheme<BearerHandler>(Principals.Scheme, null);
        });
        services.AddFleetJwt();
        services.AddAuthorization(options =>
        {
            // An endpoint that names no scope is closed to everyone but an administrator, rather than open by mistake.
            options.FallbackPolicy = PolicyOf(Scopes.Admin);
            options.DefaultPolicy = options.FallbackPolicy;
            foreach (var scope in Scopes.All)
            {
                options.AddPolicy(scope, PolicyOf(scope));
            }
        });
    }

    private static AuthorizationPolicy PolicyOf(string scope)
    {
        var policy = new AuthorizationPolicyBuilder(Principals.Scheme).RequireAuthenticatedUser();
        return scope == Scopes.Agent
            ? policy.AddRequirements(new OwnHostRequirement()).Build()
            : policy.RequireAssertion(context => context.User.Has(scope)).Build();
    }
}
