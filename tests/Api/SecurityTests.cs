using System.Net;
using System.Net.Http.Json;
using Fleet.Api.Security;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Security;
using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.Api.Tests;

public sealed class SecurityTests
{
    [Fact]
    [Trait("Invariant", "I7")]
    public async Task AgentRoutes_WithOwnHostsPath_OpenNoOtherHostsVm()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await api.EnrolAsync("host-b");
        await api.Admin.CreateVmAsync("vm-1", "host-b");
        await (await agent.Client.GetAsync(new Uri("/v1/hosts/HOST-A/desired/vm-1", UriKind.Relative))).ProblemAsync(HttpStatusCode.Forbidden, "wrong-host");
        await (await agent.Client.GetAsync(new Uri("/v1/hosts/host-a/desired/vm-1", UriKind.Relative))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
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

    private static Task<HttpResponseMessage> EnrolAsync(ApiHost api, string host, string join, string credential)
    {
        Assert.True(TokenText.TryGetId(credential, out var id));
        return PostEnrolAsync(api, new EnrollRequest(host, join, id, TokenText.Hash(credential)));
    }

    private static Task<HttpResponseMessage> PostEnrolAsync(ApiHost api, EnrollRequest request) =>
        api.Client(null).PostAsJsonAsync(Routes.Enroll, request, FleetJson.Default.EnrollRequest);
}
