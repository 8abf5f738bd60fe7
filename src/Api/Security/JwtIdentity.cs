using System.Globalization;
using System.Security.Claims;
using Fleet.Api.Startup;
using Microsoft.AspNetCore.Authentication;
using Microsoft.AspNetCore.Authentication.JwtBearer;
using Microsoft.Extensions.Options;
using Microsoft.IdentityModel.Tokens;

namespace Fleet.Api.Security;

/// <summary>
/// External identity. The framework's handler checks signature, issuer, audience and lifetime; of what the token says, only the
/// subject and the scopes are taken over, so that no claim of a provider can pass for one of ours.
/// </summary>
internal static class JwtIdentity
{
    public const string Scheme = "Jwt";
    private const int LongestSubject = 128;
    private static readonly TimeSpan Skew = TimeSpan.FromSeconds(30);

    // Asymmetric only: with a shared secret whoever can check a token can make one.
    private static readonly string[] Algorithms =
    [
        SecurityAlgorithms.RsaSha256, SecurityAlgorithms.RsaSha384, SecurityAlgorithms.RsaSha512,
        SecurityAlgorithms.RsaSsaPssSha256, SecurityAlgorithms.RsaSsaPssSha384, SecurityAlgorithms.RsaSsaPssSha512,
        SecurityAlgorithms.EcdsaSha256, SecurityAlgorithms.EcdsaSha384, SecurityAlgorithms.EcdsaSha512,
    ];

    public static void AddFleetJwt(this IServiceCollection services)
    {
        // By hand: AddJwtBearer wants what AddAuthentication registers, see SecurityServices.
        services.AddTransient<JwtBearerHandler>();
        services.AddSingleton<IPostConfigureOptions<JwtBearerOptions>, JwtBearerPostConfigureOptions>();
        services.AddOptions<AuthenticationOptions>().Configure<IOptions<FleetOptions>>((authentication, fleet) =>
        {
            if (fleet.Value.Jwt.IsOn)
            {
                authentication.AddScheme<JwtBearerHandler>(Scheme, null);
            }
        });
        services.AddOptions<JwtBearerOptions>(Scheme).Configure<IOptions<FleetOptions>, TimeProvider>((jwt, fleet, time) => Configure(jwt, fleet.Value.Jwt, time));
        services.AddHostedService<JwtStart>();
    }

    /// <summary>Null where the token names nobody.</summary>
    public static ClaimsPrincipal? ToPrincipal(ClaimsPrincipal token, JwtOptions options)
    {
        var subject = token.FindFirstValue("sub") ?? token.FindFirstValue("client_id");
        if (subject is null || subject.Length is 0 or > LongestSubject || subject.Any(char.IsControl))
        {
            return null;
        }

        var scopes = token.FindAll(options.ScopeClaim)
            .SelectMany(claim => claim.Value.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .Where(scope => scope != Scopes.Agent && Scopes.All.Contains(scope))
            .Distinct();
        return Principals.Of($"jwt:{subject}", scopes, host: null, ReadExpiry(token));
    }

    /// <summary>Unix ms, as late as the token is accepted; null where no date can tell it.</summary>
    private static long? ReadExpiry(ClaimsPrincipal token) =>
        long.TryParse(token.FindFirstValue("exp"), NumberStyles.None, CultureInfo.InvariantCulture, out var seconds) && seconds < int.MaxValue * 100L
            ? (seconds * 1000) + (long)Skew.TotalMilliseconds
            : null;

    private static void Configure(JwtBearerOptions jwt, JwtOptions options, TimeProvider time)
    {
        jwt.Authority = options.Authority;
        jwt.RequireHttpsMetadata = options.Authority?.StartsWith("https:", StringComparison.OrdinalIgnoreCase) ?? true;
        jwt.MapInboundClaims = false;
        jwt.SaveToken = false;
        jwt.TimeProvider = time;
        jwt.BackchannelTimeout = TimeSpan.FromSeconds(10);
        jwt.TokenValidationParameters = new TokenValidationParameters
        {
            ValidAudience = options.Audience,
            ValidIssuer = options.Issuer,
            ValidAlgorithms = Algorithms,
            LifetimeValidator = (notBefore, expires, _, _) =>
            {
                var now = time.GetUtcNow().UtcDateTime;
                return expires is { } end && end + Skew > now && (notBefore ?? now) - Skew <= now;
            },
        };
        if (options.SigningKeys is { } path)
        {
            jwt.TokenValidationParameters.IssuerSigningKeys = ReadKeys(path);
        }

        jwt.Events = new JwtBearerEvents
        {
            OnAuthenticationFailed = async context =>
            {
                // Otherwise a provider that does not answer would make this a fault of ours (500).
                context.Fail("The token was not accepted.");
                await TellIfSilentAsync(context);
            },
        };
    }

    /// <summary>Without the provider's keys no token of it is good: the operator must not take that for wrong tokens.</summary>
    private static async Task TellIfSilentAsync(AuthenticationFailedContext context)
    {
        if (context.Options.ConfigurationManager is not { } provider)
        {
            return;
        }

        try
        {
            await provider.GetConfigurationAsync(context.HttpContext.RequestAborted);
        }
        catch (InvalidOperationException exception)
        {
            context.HttpContext.RequestServices.GetRequiredService<Refusals>().IdentityUnavailable(exception);
        }
    }

    /// <exception cref="IOException">The file cannot be read or holds no public key.</exception>
    private static IList<SecurityKey> ReadKeys(string path)
    {
        try
        {
            var keys = new JsonWebKeySet(File.ReadAllText(path)).GetSigningKeys();
            return keys.Count > 0 ? keys : throw new ArgumentException("there is no key in it.");
        }
        catch (ArgumentException exception)
        {
            throw new IOException($"Fleet:Jwt:SigningKeys '{path}' cannot be used: {exception.Message}", exception);
        }
    }

    /// <summary>Reads the settings when the program starts, not when the first token comes.</summary>
    private sealed class JwtStart(IOptions<FleetOptions> fleet, IServiceProvider services) : IHostedService
    {
        public Task StartAsync(CancellationToken cancellationToken)
        {
            if (fleet.Value.Jwt.IsOn)
            {
                _ = services.GetRequiredService<IOptionsMonitor<JwtBearerOptions>>().Get(Scheme);
            }

            return Task.CompletedTask;
        }

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
