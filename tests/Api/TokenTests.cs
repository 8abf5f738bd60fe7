using System.Net;
using System.Net.Http.Json;
using Fleet.Api.Security;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Security;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.Api.Tests;

public sealed class TokenTests
{
    private static readonly Uri Vms = new(Routes.Vms, UriKind.Relative);

    [Fact]
    public async Task Create_WithScopes_OpensTheirRoutesUntilItExpires()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        await using var api = await ApiHost.StartAsync(time: time);
        var created = await CreateAsync(api, new TokenRequest("ci", [Scopes.Read, Scopes.PagesWrite], "1h"));
        var client = api.Client(created.Token);
        Assert.Equal(time.GetUtcNow().AddHours(1), created.ExpiresAt);
        Assert.Equal(HttpStatusCode.OK, (await client.GetAsync(Vms)).StatusCode);
        await (await client.PutVmAsync("vm-1", null)).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        await (await client.GetAsync(new Uri(Routes.Tokens, UriKind.Relative))).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        time.Advance(TimeSpan.FromHours(1));
        await (await client.GetAsync(Vms)).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");
        Assert.Equal(created.ExpiresAt, (await GetAsync(api, created.Id)).ExpiresAt);
    }

    [Theory]
    [InlineData("""{"name":"x","scopes":["agent"]}""", "$.scopes[0]")]
    [InlineData("""{"name":"x","scopes":["read","root"]}""", "$.scopes[1]")]
    [InlineData("""{"name":"x","scopes":["read","read"]}""", "$.scopes")]
    [InlineData("""{"name":"x","scopes":["read admin"]}""", "$.scopes[0]")]
    [InlineData("""{"name":"x","scopes":[]}""", "$.scopes")]
    [InlineData("""{"name":"x","scopes":[null]}""", "$.scopes[0]")]
    [InlineData("""{"name":"","scopes":["read"]}""", "$.name")]
    [InlineData("""{"name":"a\u0000b","scopes":["read"]}""", "$.name")]
    [InlineData("""{"name":"x","scopes":["read"],"expiresIn":"0s"}""", "$.expiresIn")]
    [InlineData("""{"name":"x","scopes":["read"],"expiresIn":"3651d"}""", "$.expiresIn")]
    public async Task Create_ThatIsNotValid_IsRefused(string body, string path)
    {
        await using var api = await ApiHost.StartAsync();
        var problem = await (await api.Admin.SendJsonAsync(HttpMethod.Post, Routes.Tokens, body)).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        Assert.True(problem.GetProperty("errors").TryGetProperty(path, out _), problem.ToString());
    }

    [Fact]
    public async Task List_PagesThroughTokensAndAgentsAndShowsNoSecret()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await api.EnrolAsync("host-a");
        await agent.ClaimAsync();
        var created = await CreateAsync(api, new TokenRequest("ci", [Scopes.Read]));
        var all = new List<TokenResource>();
        var text = string.Empty;
        for (string? next = string.Empty; next is not null;)
        {
            var response = await api.Admin.GetAsync(new Uri($"{Routes.Tokens}?limit=1{(next.Length > 0 ? $"&after={next}" : string.Empty)}", UriKind.Relative));
            text += await response.Content.ReadAsStringAsync();
            var page = await response.ReadAsync(FleetJson.Default.ItemListTokenResource);
            all.AddRange(page.Items);
            next = page.Next;
        }

        Assert.Equal(3, all.Count);
        Assert.Equal(all.Select(item => item.Id).Order(StringComparer.Ordinal), all.Select(item => item.Id));
        var agents = Assert.Single(all, item => item.Kind == TokenKinds.Agent);
        Assert.Equal(("host-a", "agent"), (agents.Host, Assert.Single(agents.Scopes)));
        Assert.NotNull(agents.LastUsedAt);
        Assert.Null(all.Single(item => item.Id == created.Id).LastUsedAt);
        Assert.Equal([agents.Id], (await ListAsync(api, "?kind=agent&host=host-a")).Select(item => item.Id));
        Assert.Equal(2, (await ListAsync(api, "?kind=token")).Count);
        Assert.DoesNotContain(created.Token[24..], text, StringComparison.Ordinal);
        Assert.DoesNotContain(TokenText.Hash(created.Token), text, StringComparison.Ordinal);
        await (await api.Admin.GetAsync(new Uri(Routes.Tokens + "?kind=x&host=-&limit=0", UriKind.Relative))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
    }

    [Fact]
    public async Task Revoke_TakesEffectAtOnceIsAuditedAndMayBeRepeated()
    {
        await using var api = await ApiHost.StartAsync();
        var created = await CreateAsync(api, new TokenRequest("ci", [Scopes.Read]));
        var client = api.Client(created.Token);
        Assert.Equal(HttpStatusCode.OK, (await client.GetAsync(Vms)).StatusCode);
        Assert.Equal(HttpStatusCode.PreconditionFailed, (await DeleteAsync(api, created.Id, "\"1\"")).StatusCode);
        Assert.Equal(HttpStatusCode.NoContent, (await DeleteAsync(api, created.Id)).StatusCode);
        await (await client.GetAsync(Vms)).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");
        Assert.Equal(HttpStatusCode.NoContent, (await DeleteAsync(api, created.Id, "\"1\"")).StatusCode);
        Assert.NotNull((await GetAsync(api, created.Id)).RevokedAt);
        await (await DeleteAsync(api, "0000000000000000")).ProblemAsync(HttpStatusCode.NotFound, "unknown-token");
        Assert.Equal([ChangeKinds.CredentialCreated, ChangeKinds.CredentialRevoked], await KindsAsync(api, ChangeResources.Credential(created.Id)));
    }

    [Fact]
    public async Task Revoke_OfTheLastAdministratorThatIsGood_IsRefused()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        await using var api = await ApiHost.StartAsync(time: time);
        Assert.True(TokenText.TryGetId(api.AdminToken, out var first));
        await CreateAsync(api, new TokenRequest("reader", [Scopes.Read]));
        await api.EnrolAsync("host-a");
        await (await DeleteAsync(api, first)).ProblemAsync(HttpStatusCode.Conflict, "last-admin");
        var second = await CreateAsync(api, new TokenRequest("second", [Scopes.Admin], "1h"));
        time.Advance(TimeSpan.FromHours(1));
        await (await DeleteAsync(api, first)).ProblemAsync(HttpStatusCode.Conflict, "last-admin");
        Assert.Equal(HttpStatusCode.NoContent, (await DeleteAsync(api, second.Id)).StatusCode);
        var third = await CreateAsync(api, new TokenRequest("third", [Scopes.Admin]));
        Assert.Equal(HttpStatusCode.NoContent, (await DeleteAsync(api, first)).StatusCode);
        await (await api.Client(third.Token).DeleteAsync(new Uri(Routes.Token(third.Id), UriKind.Relative))).ProblemAsync(HttpStatusCode.Conflict, "last-admin");
    }

    [Fact]
    public async Task Revoke_OfTwoAdministratorsAtOnce_LeavesOne()
    {
        await using var api = await ApiHost.StartAsync();
        Assert.True(TokenText.TryGetId(api.AdminToken, out var first));
        var second = await CreateAsync(api, new TokenRequest("second", [Scopes.Admin]));
        var keeper = api.Client(second.Token);
        var answers = await Task.WhenAll(
            api.Admin.DeleteAsync(new Uri(Routes.Token(second.Id), UriKind.Relative)),
            keeper.DeleteAsync(new Uri(Routes.Token(first), UriKind.Relative)));
        Assert.Single(answers, answer => answer.StatusCode == HttpStatusCode.NoContent);
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Revoke_OfAnAgentsCredential_EndsItsStream()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var stream = await agent.Client.GetStreamAsync(new Uri(Routes.Desired("host-a", agent.Incarnation), UriKind.Relative));
        var credential = Assert.Single(await ListAsync(api, "?kind=agent"));
        Assert.Equal(HttpStatusCode.NoContent, (await DeleteAsync(api, credential.Id)).StatusCode);
        using var reader = new StreamReader(stream);
        Assert.Contains("snapshot-end", await reader.ReadToEndAsync().WaitAsync(TimeSpan.FromSeconds(60)), StringComparison.Ordinal);
        await (await agent.BeatAsync()).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");
        await (await agent.Client.GetAsync(new Uri(Routes.Desired("host-a", agent.Incarnation), UriKind.Relative))).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");
    }

    [Fact]
    public async Task LastUse_SurvivesARestartCoarsely()
    {
        using var folder = new TempFolder();
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        string id;
        await using (var api = await ApiHost.StartAsync(folder, time))
        {
            id = (await CreateAsync(api, new TokenRequest("ci", [Scopes.Admin]))).Id;
            await api.EnrolAsync("host-a");
            await api.Services.GetServices<IHostedService>().OfType<LastUse>().Single().WriteAsync(CancellationToken.None);
        }

        await using var again = await ApiHost.StartAsync(folder, time);
        Assert.True(TokenText.TryGetId(again.AdminToken, out var admin));
        await using var db = again.Services.GetRequiredService<StoreContexts>().OpenReader();
        Assert.Equal(time.GetUtcNow().ToUnixTimeMilliseconds(), (await db.Credentials.SingleAsync(row => row.Id == admin)).LastUsedAt);
        Assert.Null((await GetAsync(again, id)).LastUsedAt);
    }

    [Fact]
    public async Task JoinTokens_AreListedAndRevokedForGood()
    {
        await using var api = await ApiHost.StartAsync();
        var join = await api.Admin.JoinTokenAsync("host-a");
        await api.EnrolAsync("host-b");
        Assert.True(TokenText.TryGetId(join, out var id));
        var response = await api.Admin.GetAsync(new Uri(Routes.JoinTokens, UriKind.Relative));
        Assert.DoesNotContain(join[24..], await response.Content.ReadAsStringAsync(), StringComparison.Ordinal);
        var items = (await response.ReadAsync(FleetJson.Default.ItemListJoinTokenResource)).Items;
        Assert.Equal([("host-a", false), ("host-b", true)], items.Select(item => (item.Host, item.UsedAt is not null && item.Credential is not null)).Order());
        Assert.Equal("host-a", Assert.Single((await (await api.Admin.GetAsync(new Uri(Routes.JoinTokens + "?host=host-a", UriKind.Relative))).ReadAsync(FleetJson.Default.ItemListJoinTokenResource)).Items).Host);

        var uri = new Uri(Routes.JoinToken(id), UriKind.Relative);
        Assert.Equal(HttpStatusCode.NoContent, (await api.Admin.DeleteAsync(uri)).StatusCode);
        Assert.Equal(HttpStatusCode.NoContent, (await api.Admin.DeleteAsync(uri)).StatusCode);
        Assert.NotNull((await (await api.Admin.GetAsync(uri)).ReadAsync(FleetJson.Default.JoinTokenResource)).RevokedAt);
        var credential = TokenText.Create();
        Assert.True(TokenText.TryGetId(credential, out var credentialId));
        var enrol = await api.Client(null).PostAsJsonAsync(
            Routes.Enroll, new EnrollRequest("host-a", join, credentialId, TokenText.Hash(credential)), FleetJson.Default.EnrollRequest);
        await enrol.ProblemAsync(HttpStatusCode.Unauthorized, "join-token-invalid");
        await (await api.Admin.DeleteAsync(new Uri(Routes.JoinToken("0000000000000000"), UriKind.Relative))).ProblemAsync(HttpStatusCode.NotFound, "unknown-token");
        Assert.Equal([ChangeKinds.JoinTokenCreated, ChangeKinds.JoinTokenRevoked], await KindsAsync(api, ChangeResources.JoinToken(id)));
    }

    internal static async Task<TokenCreated> CreateAsync(ApiHost api, TokenRequest request) =>
        await (await api.Admin.PostAsJsonAsync(Routes.Tokens, request, FleetJson.Default.TokenRequest)).ReadAsync(FleetJson.Default.TokenCreated);

    internal static async Task<IReadOnlyList<TokenResource>> ListAsync(ApiHost api, string query) =>
        (await (await api.Admin.GetAsync(new Uri(Routes.Tokens + query, UriKind.Relative))).ReadAsync(FleetJson.Default.ItemListTokenResource)).Items;

    internal static async Task<List<string>> KindsAsync(ApiHost api, string resource)
    {
        await using var db = api.Services.GetRequiredService<StoreContexts>().OpenReader();
        return await db.Changes.Where(row => row.Resource == resource).OrderBy(row => row.Revision).Select(row => row.Kind).ToListAsync();
    }

    private static async Task<TokenResource> GetAsync(ApiHost api, string id) =>
        await (await api.Admin.GetAsync(new Uri(Routes.Token(id), UriKind.Relative))).ReadAsync(FleetJson.Default.TokenResource);

    private static Task<HttpResponseMessage> DeleteAsync(ApiHost api, string id, string? ifMatch = null)
    {
        var request = new HttpRequestMessage(HttpMethod.Delete, Routes.Token(id));
        if (ifMatch is not null)
        {
            request.Headers.TryAddWithoutValidation("If-Match", ifMatch);
        }

        return api.Admin.SendAsync(request);
    }
}
