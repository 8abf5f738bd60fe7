using System.Net;
using System.Net.Http.Json;
using Fleet.Api.Security;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Security;
using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.Api.Tests;

public sealed class SecurityTests
{
    private static readonly string[] OfOperators = ["/v1/hosts/{host}/drain", "/v1/hosts/{host}/labels", "/v1/hosts/{host}/fence"];
    private static readonly string[] Anonymous = ["/health/live", "/health/ready", "/openapi/{documentName}.json", "/v1/agents/enroll"];

    [Fact]
    public async Task EveryRoute_WithoutAToken_IsRefusedUnlessItIsKnownToBeAnonymous()
    {
        await using var api = await ApiHost.StartAsync();
        var nobody = api.Client(null);
        var open = new List<string>();
        var routes = Routes(api).ToList();
        foreach (var (method, pattern) in routes)
        {
            var response = await SendAsync(nobody, method, pattern, "host-a");
            if (response.StatusCode != HttpStatusCode.Unauthorized)
            {
                open.Add(pattern);
                continue;
            }

            await response.ProblemAsync(HttpStatusCode.Unauthorized, Anonymous.Contains(pattern) ? "malformed-body" : "unauthenticated");
            Assert.Equal("Bearer", response.Headers.WwwAuthenticate.ToString());
        }

        Assert.True(routes.Count >= 19, $"Only {routes.Count} routes were found.");
        Assert.Equal(Anonymous, open.Order(StringComparer.Ordinal));
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task EveryAgentRoute_OfAnotherHost_IsRefused()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await (await api.EnrolAsync("host-b")).ClaimAsync();
        await api.Admin.CreateVmAsync("vm-1", "host-b");
        var agentRoutes = Routes(api).Where(route => IsOfAgents(route.Pattern)).ToList();
        Assert.Equal(6, agentRoutes.Count);
        foreach (var (method, pattern) in agentRoutes)
        {
            await (await SendAsync(agent.Client, method, pattern, "host-b")).ProblemAsync(HttpStatusCode.Forbidden, "wrong-host");
            await (await SendAsync(agent.Client, method, pattern, "HOST-A")).ProblemAsync(HttpStatusCode.Forbidden, "wrong-host");
            await (await SendAsync(api.Admin, method, pattern, "host-a")).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        }

        // Its own host's path does not open another host's VM.
        await (await agent.Client.GetAsync(new Uri("/v1/hosts/host-a/desired/vm-1", UriKind.Relative))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task EveryOtherRoute_ForAnAgent_IsForbidden()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await api.EnrolAsync("host-a");
        foreach (var (method, pattern) in Routes(api).Where(route =>
            !Anonymous.Contains(route.Pattern) && !IsOfAgents(route.Pattern)))
        {
            await (await SendAsync(agent.Client, method, pattern, "host-a")).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        }
    }

    [Theory]
    [InlineData("PUT", "/v1/vms/vm-1", Scopes.VmsWrite)]
    [InlineData("DELETE", "/v1/vms/vm-1", Scopes.VmsWrite)]
    [InlineData("GET", "/v1/vms", Scopes.Read)]
    [InlineData("GET", "/v1/vms/vm-1", Scopes.Read)]
    [InlineData("GET", "/v1/vms/vm-1/pages", Scopes.Read)]
    [InlineData("GET", "/v1/hosts", Scopes.Read)]
    [InlineData("GET", "/v1/hosts/host-a", Scopes.Read)]
    [InlineData("PUT", "/v1/hosts/host-a/drain", Scopes.HostsWrite)]
    [InlineData("DELETE", "/v1/hosts/host-a/drain", Scopes.HostsWrite)]
    [InlineData("PUT", "/v1/hosts/host-a/labels", Scopes.HostsWrite)]
    [InlineData("GET", "/v1/hits", Scopes.Read)]
    [InlineData("POST", "/v1/vms/vm-1/pages", Scopes.PagesWrite)]
    [InlineData("DELETE", "/v1/vms/vm-1/pages/1?reason=x", Scopes.PagesClear)]
    [InlineData("POST", "/v1/join-tokens", Scopes.HostsWrite)]
    [InlineData("PUT", "/v1/migrations/m1", Scopes.MigrationsWrite)]
    [InlineData("POST", "/v1/hosts/host-a/fence", Scopes.MigrationsFence)]
    [InlineData("POST", "/v1/vms/vm-1/release", Scopes.MigrationsFence)]
    [InlineData("GET", "/v1/migrations", Scopes.Read)]
    [InlineData("POST", "/v1/migrations/m1/switchover", Scopes.MigrationsWrite)]
    [InlineData("POST", "/v1/migrations/m1/complete", Scopes.MigrationsWrite)]
    [InlineData("POST", "/v1/migrations/m1/abort", Scopes.MigrationsWrite)]
    [InlineData("POST", "/v1/vms/vm-1/reset", Scopes.PagesClear)]
    [InlineData("POST", "/v1/vms/vm-1/park", Scopes.MigrationsWrite)]
    public async Task Route_WithEachScope_OpensForItsOwnAndAdminOnly(string method, string path, string needed)
    {
        await using var api = await ApiHost.StartAsync();
        foreach (var scope in Scopes.All.Where(scope => scope != Scopes.Agent))
        {
            var client = api.Client(await MintAsync(api, scope));
            var response = await SendAsync(client, method, path, "host-a");
            Assert.Equal(scope == needed || scope == Scopes.Admin, response.StatusCode != HttpStatusCode.Forbidden);
        }
    }

    [Fact]
    public async Task Token_WrongInItsSecret_ExpiredOrRevoked_IsRefused()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        await using var api = await ApiHost.StartAsync(time: time);
        var wrong = api.AdminToken[..^1] + (api.AdminToken[^1] == '0' ? '1' : '0');
        foreach (var token in new[] { wrong, "fleet_x", "", api.AdminToken + "0", TokenText.Create() })
        {
            await (await api.Client(token).GetAsync(new Uri("/v1/vms", UriKind.Relative))).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");
        }

        var expiring = api.Client(await MintAsync(api, Scopes.Read, row => row.ExpiresAt = time.GetUtcNow().AddMinutes(1).ToUnixTimeMilliseconds()));
        Assert.Equal(HttpStatusCode.OK, (await expiring.GetAsync(new Uri("/v1/vms", UriKind.Relative))).StatusCode);
        time.Advance(TimeSpan.FromMinutes(1));
        Assert.Equal(HttpStatusCode.Unauthorized, (await expiring.GetAsync(new Uri("/v1/vms", UriKind.Relative))).StatusCode);
        var revoked = api.Client(await MintAsync(api, Scopes.Read, row => row.RevokedAt = 1));
        Assert.Equal(HttpStatusCode.Unauthorized, (await revoked.GetAsync(new Uri("/v1/vms", UriKind.Relative))).StatusCode);
    }

    [Fact]
    public async Task Enrol_Repeated_IsAnsweredAlikeForTheSameCredentialOnly()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        await using var api = await ApiHost.StartAsync(time: time);
        var join = await api.Admin.JoinTokenAsync("host-a");
        var (first, second) = (TokenText.Create(), TokenText.Create());

        Assert.Equal(HttpStatusCode.OK, (await EnrolAsync(api, "host-a", join, first)).StatusCode);
        time.Advance(TimeSpan.FromHours(2));
        Assert.Equal(HttpStatusCode.OK, (await EnrolAsync(api, "host-a", join, first)).StatusCode);
        await (await EnrolAsync(api, "host-a", join, second)).ProblemAsync(HttpStatusCode.Conflict, "join-token-used");
        Assert.True(TokenText.TryGetId(first, out var id));
        await (await PostEnrolAsync(api, new EnrollRequest("host-a", join, id, TokenText.Hash(second)))).ProblemAsync(HttpStatusCode.Conflict, "join-token-used");
        Assert.True((await new TestAgent("host-a", api.Client(first)).ClaimAsync()).Incarnation > 0);
    }

    [Fact]
    public async Task Enrol_WithAJoinTokenThatIsNotValid_IsRefusedAndMakesNothing()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        await using var api = await ApiHost.StartAsync(time: time);
        var join = await api.Admin.JoinTokenAsync("host-a");
        await api.Admin.JoinTokenAsync("host-b");
        var credential = TokenText.Create();
        var wrongSecret = join[..^1] + (join[^1] == '0' ? '1' : '0');

        await (await EnrolAsync(api, "host-b", join, credential)).ProblemAsync(HttpStatusCode.Unauthorized, "join-token-invalid");
        await (await EnrolAsync(api, "host-a", wrongSecret, credential)).ProblemAsync(HttpStatusCode.Unauthorized, "join-token-invalid");
        await (await EnrolAsync(api, "host-a", TokenText.Create(), credential)).ProblemAsync(HttpStatusCode.Unauthorized, "join-token-invalid");
        await (await EnrolAsync(api, "host-a", "nonsense", credential)).ProblemAsync(HttpStatusCode.Unauthorized, "join-token-invalid");
        await (await PostEnrolAsync(api, new EnrollRequest("host-a", join, "X", "Y"))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        Assert.True(TokenText.TryGetId(api.AdminToken, out var adminId));
        await (await PostEnrolAsync(api, new EnrollRequest("host-a", join, adminId, TokenText.Hash(credential)))).ProblemAsync(HttpStatusCode.Conflict, "credential-exists");
        time.Advance(TimeSpan.FromHours(1));
        await (await EnrolAsync(api, "host-a", join, credential)).ProblemAsync(HttpStatusCode.Unauthorized, "join-token-invalid");
        Assert.Equal(HttpStatusCode.Unauthorized, (await api.Client(credential).GetAsync(new Uri("/v1/vms", UriKind.Relative))).StatusCode);
    }

    [Fact]
    public async Task Logs_OfAWholeEnrolment_HoldNoSecret()
    {
        await using var api = await ApiHost.StartAsync();
        var join = await api.Admin.JoinTokenAsync("host-a");
        var credential = TokenText.Create();
        await EnrolAsync(api, "host-a", join, credential);
        await EnrolAsync(api, "host-a", join, TokenText.Create());
        await new TestAgent("host-a", api.Client(credential)).ClaimAsync();

        string[] secrets = [api.AdminToken[24..], join[24..], credential[24..], TokenText.Hash(credential)];
        Assert.NotEmpty(api.Logs);
        Assert.DoesNotContain(api.Logs, line => secrets.Any(secret => line.Text.Contains(secret, StringComparison.Ordinal)));
    }

    internal static async Task<string> MintAsync(ApiHost api, string scope, Action<CredentialRow>? change = null)
    {
        var token = TokenText.Create();
        Assert.True(TokenText.TryGetId(token, out var id));
        await api.Services.GetRequiredService<StoreWriter>().ExecuteAsync(
            write =>
            {
                var row = new CredentialRow { Id = id, Hash = TokenText.Hash(token), Name = scope, Scopes = scope, CreatedAt = write.Now };
                change?.Invoke(row);
                write.Db.Credentials.Add(row);
                return Task.FromResult(write.Change("test", "credentials", "test"));
            },
            CancellationToken.None);
        return token;
    }

    private static bool IsOfAgents(string pattern) => pattern.StartsWith("/v1/hosts/{host}/", StringComparison.Ordinal) && !OfOperators.Contains(pattern);

    private static IEnumerable<(string Method, string Pattern)> Routes(ApiHost api) =>
        from endpoint in api.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
        from method in endpoint.Metadata.GetMetadata<HttpMethodMetadata>()?.HttpMethods ?? ["GET"]
        select (method, "/" + endpoint.RoutePattern.RawText!.TrimStart('/'));

    private static Task<HttpResponseMessage> SendAsync(HttpClient client, string method, string pattern, string host)
    {
        var path = pattern.Replace("{host}", host, StringComparison.Ordinal).Replace("{vm}", "vm-1", StringComparison.Ordinal)
            .Replace("{frame}", "1", StringComparison.Ordinal).Replace("{documentName}", "v1", StringComparison.Ordinal);
        return method is "GET" or "DELETE"
            ? client.SendAsync(new HttpRequestMessage(new HttpMethod(method), path), HttpCompletionOption.ResponseHeadersRead)
            : client.SendJsonAsync(new HttpMethod(method), path, "{}");
    }

    private static Task<HttpResponseMessage> EnrolAsync(ApiHost api, string host, string join, string credential)
    {
        Assert.True(TokenText.TryGetId(credential, out var id));
        return PostEnrolAsync(api, new EnrollRequest(host, join, id, TokenText.Hash(credential)));
    }

    private static Task<HttpResponseMessage> PostEnrolAsync(ApiHost api, EnrollRequest request) =>
        api.Client(null).PostAsJsonAsync(Contracts.Routes.Enroll, request, FleetJson.Default.EnrollRequest);
}
