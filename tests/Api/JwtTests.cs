using System.Net;
using System.Net.Http.Json;
using System.Security.Cryptography;
using System.Text.Json;
using Fleet.Api.Security;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Security;
using Fleet.Data.Storage;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.DataProtection;
using Microsoft.AspNetCore.Http;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
using Microsoft.IdentityModel.JsonWebTokens;
using Microsoft.IdentityModel.Tokens;

namespace Fleet.Api.Tests;

public sealed class JwtTests : IDisposable
{
    private const string Issuer = "https://identity.example/";
    private static readonly Uri Vms = new(Routes.Vms, UriKind.Relative);
    private readonly byte[] _shared = RandomNumberGenerator.GetBytes(32);
    private readonly RSA _rsa = RSA.Create(2048);
    private readonly TempFolder _folder = new();

    [Fact]
    public async Task Token_SignedByTheProvider_HasItsScopesAndItsNameInTheChangeLog()
    {
        await using var api = await StartAsync();
        var client = api.Client(Token(("scope", "openid read vms:write")));
        Assert.Equal(HttpStatusCode.OK, (await client.GetAsync(Vms)).StatusCode);
        await client.CreateVmAsync("vm-1", null);
        await (await client.PostPagesAsync("vm-1", new Contracts.Pages.PageReport(1, 12))).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        await using var db = api.Services.GetRequiredService<StoreContexts>().OpenReader();
        Assert.Equal("jwt:alice", (await db.Changes.SingleAsync(row => row.Resource == "vms/vm-1")).Actor);
        Assert.Equal(HttpStatusCode.OK, (await api.Admin.GetAsync(Vms)).StatusCode);
    }

    [Fact]
    public async Task Token_WithScopesAsAListInAnotherClaim_IsUnderstood()
    {
        await using var api = await StartAsync("--Fleet:Jwt:ScopeClaim=roles");
        Assert.Equal(HttpStatusCode.OK, (await api.Client(Token(("roles", new[] { "other", "read" }))).GetAsync(Vms)).StatusCode);
        await (await api.Client(Token(("scope", "read"))).GetAsync(Vms)).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Token_ThatClaimsToBeAnAgent_IsNone()
    {
        await using var api = await StartAsync();
        await api.EnrolAsync("host-a");
        Assert.True(TokenText.TryGetId(api.AdminToken, out var admin));
        var client = api.Client(Token(("scope", "agent"), ("host", "host-a"), ("credential", admin)));
        await (await client.GetAsync(new Uri(Routes.DesiredVm("host-a", "vm-1"), UriKind.Relative))).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        await (await client.GetAsync(Vms)).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        var both = api.Client(Token(("scope", "admin agent"), ("host", "host-a")));
        Assert.Equal(HttpStatusCode.OK, (await both.GetAsync(Vms)).StatusCode);
        await (await both.GetAsync(new Uri(Routes.DesiredVm("host-a", "vm-1"), UriKind.Relative))).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        await (await both.PostAsJsonAsync(Routes.Tokens, new TokenRequest("x", ["agent"]), FleetJson.Default.TokenRequest)).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
    }

    [Fact]
    public async Task Token_WithAnythingWrong_IsRefused()
    {
        await using var api = await StartAsync();
        var good = Token(("scope", "read"));
        Assert.Equal(HttpStatusCode.OK, (await api.Client(good).GetAsync(Vms)).StatusCode);
        using var other = RSA.Create(2048);
        var publicAsSecret = new SigningCredentials(new SymmetricSecurityKey(_rsa.ExportSubjectPublicKeyInfo()) { KeyId = "k1" }, SecurityAlgorithms.HmacSha256);
        var shared = new SigningCredentials(new SymmetricSecurityKey(_shared) { KeyId = "k2" }, SecurityAlgorithms.HmacSha256);
        var now = TimeProvider.System.GetUtcNow().UtcDateTime;
        string[] wrong =
        [
            Sign(Describe(("scope", "read")), new SigningCredentials(new RsaSecurityKey(other) { KeyId = "k1" }, SecurityAlgorithms.RsaSha256)),
            Sign(Describe(("scope", "read")), publicAsSecret),
            Sign(Describe(("scope", "read")), shared),
            Sign(Describe(("scope", "read")), null),
            good[..^8] + "AAAAAAAA",
            good[..good.LastIndexOf('.')] + ".",
            Token(d => d.Audience = "other"),
            Token(d => d.Issuer = "https://other.example/"),
            Token(d => d.Expires = now.AddMinutes(-2)),
            Token(d => d.NotBefore = now.AddMinutes(5)),
            Token(d => d.Claims["sub"] = "a\nb"),
            Token(d => d.Claims["sub"] = new string('x', 200)),
            Token(d => d.Claims.Remove("sub")),
            "a.b.c", "eyJ", new string('a', 4000),
        ];
        foreach (var token in wrong)
        {
            await (await api.Client(token).GetAsync(Vms)).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");
        }

        var endless = new JsonWebTokenHandler { SetDefaultTimesOnTokenCreation = false };
        var token0 = endless.CreateToken($$"""{"iss":"{{Issuer}}","aud":"fleet","sub":"alice","scope":"read"}""", Credentials());
        await (await api.Client(token0).GetAsync(Vms)).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");
        Assert.DoesNotContain(api.Logs, line => line.Level >= LogLevel.Error);
        Assert.DoesNotContain(api.Logs, line => line.Text.Contains(good.Split('.')[2], StringComparison.Ordinal));
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task StreamOfChanges_OfATokenThatExpires_EndsThen()
    {
        var time = new FakeTimeProvider(TimeProvider.System.GetUtcNow());
        await File.WriteAllTextAsync(_folder.File("keys.json"), KeySet());
        await using var api = await ApiHost.StartAsync(
            null, time, $"--Fleet:Jwt:SigningKeys={_folder.File("keys.json")}", "--Fleet:Jwt:Audience=fleet", $"--Fleet:Jwt:Issuer={Issuer}");
        var after = 0L;
        var feed = await ChangeTests.ReadToTheEndAsync(api, api.Client(Token(d => d.Expires = time.GetUtcNow().UtcDateTime.AddSeconds(5))), async () =>
        {
            // As long as it would be accepted: half a minute longer.
            time.Advance(TimeSpan.FromSeconds(35));
            after = (await api.Admin.CreateVmAsync("vm-1", null)).Version;
        });

        Assert.DoesNotContain(feed.Changes, change => change.Revision >= after);
    }

    [Fact]
    public async Task Token_WhereNothingIsSetUp_IsRefused()
    {
        await using var api = await ApiHost.StartAsync();
        await (await api.Client(Token(("scope", "admin"))).GetAsync(Vms)).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");
    }

    [Fact]
    public async Task Authority_IsAskedForItsKeysAndItsSilenceIsNoFault()
    {
        await using var provider = await StartProviderAsync();
        var authority = provider.Urls.First();
        await using var api = await ApiHost.StartAsync(null, null, $"--Fleet:Jwt:Authority={authority}", "--Fleet:Jwt:Audience=fleet");
        Assert.Equal(HttpStatusCode.OK, (await api.Client(Token(d => d.Issuer = authority)).GetAsync(Vms)).StatusCode);
        await (await api.Client(Token(("scope", "read"))).GetAsync(Vms)).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");
        Assert.Null(api.Services.GetService<IDataProtectionProvider>());

        await using var deaf = await ApiHost.StartAsync(null, null, "--Fleet:Jwt:Authority=http://127.0.0.1:9", "--Fleet:Jwt:Audience=fleet");
        await (await deaf.Client(Token(("scope", "read"))).GetAsync(Vms)).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");
        Assert.Equal(HttpStatusCode.OK, (await deaf.Admin.GetAsync(Vms)).StatusCode);
        Assert.Contains(deaf.Logs, line => line.EventId == 2110 && line.Text.Contains("identity-unavailable", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("--Fleet:Jwt:Authority=http://192.0.2.1/", "--Fleet:Jwt:Audience=fleet")]
    [InlineData("--Fleet:Jwt:Authority=https://identity.example/", "--Fleet:Jwt:ScopeClaim=x")]
    [InlineData("--Fleet:Jwt:SigningKeys=keys.json", "--Fleet:Jwt:Audience=fleet")]
    public async Task Start_WithSettingsThatAreNotSafe_IsRefused(params string[] settings) =>
        await Assert.ThrowsAsync<OptionsValidationException>(async () => await ApiHost.StartAsync(null, null, settings));

    [Fact]
    public async Task Start_WithAKeyFileThatCannotBeUsed_IsRefused()
    {
        await File.WriteAllTextAsync(_folder.File("keys.json"), """{"keys":[]}""");
        string[] settings = [$"--Fleet:Jwt:SigningKeys={_folder.File("keys.json")}", "--Fleet:Jwt:Audience=fleet", $"--Fleet:Jwt:Issuer={Issuer}"];
        await Assert.ThrowsAsync<IOException>(async () => await ApiHost.StartAsync(null, null, settings));
    }

    public void Dispose()
    {
        _rsa.Dispose();
        _folder.Dispose();
    }

    private async Task<ApiHost> StartAsync(params string[] args)
    {
        await File.WriteAllTextAsync(_folder.File("keys.json"), KeySet());
        return await ApiHost.StartAsync(
            null, null, [$"--Fleet:Jwt:SigningKeys={_folder.File("keys.json")}", "--Fleet:Jwt:Audience=fleet", $"--Fleet:Jwt:Issuer={Issuer}", .. args]);
    }

    private async Task<WebApplication> StartProviderAsync()
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        var provider = builder.Build();
        provider.Urls.Add("http://127.0.0.1:0");
        provider.MapGet("/.well-known/openid-configuration", (HttpRequest request) =>
            Results.Text($$"""{"issuer":"http://{{request.Host}}","jwks_uri":"http://{{request.Host}}/keys"}""", "application/json"));
        provider.MapGet("/keys", () => Results.Text(KeySet(), "application/json"));
        await provider.StartAsync();
        return provider;
    }

    private string KeySet()
    {
        var key = _rsa.ExportParameters(includePrivateParameters: false);
        var (n, e) = (Base64UrlEncoder.Encode(key.Modulus), Base64UrlEncoder.Encode(key.Exponent));
        return $$"""{"keys":[{"kty":"RSA","use":"sig","kid":"k1","n":{{JsonSerializer.Serialize(n)}},"e":{{JsonSerializer.Serialize(e)}}},{"kty":"oct","use":"sig","kid":"k2","k":"{{Base64UrlEncoder.Encode(_shared)}}"}]}""";
    }

    private SigningCredentials Credentials() => new(new RsaSecurityKey(_rsa) { KeyId = "k1" }, SecurityAlgorithms.RsaSha256);

    private string Token(params (string Name, object Value)[] claims) => Sign(Describe(claims), Credentials());

    private string Token(Action<SecurityTokenDescriptor> change)
    {
        var descriptor = Describe(("scope", "read"));
        change(descriptor);
        return Sign(descriptor, Credentials());
    }

    private static SecurityTokenDescriptor Describe(params (string Name, object Value)[] claims)
    {
        var now = TimeProvider.System.GetUtcNow().UtcDateTime;
        return new SecurityTokenDescriptor
        {
            Issuer = Issuer,
            Audience = "fleet",
            IssuedAt = now.AddHours(-1),
            NotBefore = now.AddHours(-1),
            Expires = now.AddMinutes(10),
            Claims = new Dictionary<string, object>(claims.ToDictionary(claim => claim.Name, claim => claim.Value)) { ["sub"] = "alice" },
        };
    }

    private static string Sign(SecurityTokenDescriptor descriptor, SigningCredentials? credentials)
    {
        descriptor.SigningCredentials = credentials;
        return new JsonWebTokenHandler().CreateToken(descriptor);
    }
}
