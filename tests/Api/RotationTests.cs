using System.Net;
using System.Net.Http.Json;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Security;
using Fleet.Data.Entities;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.Api.Tests;

/// <summary>The control plane's side of an agent's change of credential.</summary>
public sealed class RotationTests
{
    [Fact]
    public async Task Rotate_BothAreGoodForTheOverlapThenOnlyTheNewOne()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        await using var api = await ApiHost.StartAsync(time: time);
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var next = TokenText.Create();
        var result = await (await RotateAsync(agent.Client, next)).ReadAsync(FleetJson.Default.RotateResult);
        Assert.Equal(time.GetUtcNow().AddMinutes(5), result.PreviousExpiresAt);
        Assert.Equal(HttpStatusCode.OK, (await agent.BeatAsync()).StatusCode);
        Assert.Equal(HttpStatusCode.OK, (await BeatAsync(api.Client(next), agent)).StatusCode);
        time.Advance(TimeSpan.FromMinutes(5));
        await (await agent.BeatAsync()).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");
        Assert.Equal(HttpStatusCode.OK, (await BeatAsync(api.Client(next), agent)).StatusCode);
    }

    [Fact]
    public async Task Rotate_AskedAgain_IsAnsweredAlikeAndChangesNothing()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        await using var api = await ApiHost.StartAsync(time: time);
        var agent = await api.EnrolAsync("host-a");
        var next = TokenText.Create();
        Assert.True(TokenText.TryGetId(next, out var id));
        var first = await (await RotateAsync(agent.Client, next)).ReadAsync(FleetJson.Default.RotateResult);
        time.Advance(TimeSpan.FromMinutes(4));
        Assert.Equal(first, await (await RotateAsync(agent.Client, next)).ReadAsync(FleetJson.Default.RotateResult));
        time.Advance(TimeSpan.FromMinutes(4));
        Assert.Equal(HttpStatusCode.Unauthorized, (await RotateAsync(agent.Client, next)).StatusCode);
        Assert.Equal(new RotateResult(id, null), await (await RotateAsync(api.Client(next), next)).ReadAsync(FleetJson.Default.RotateResult));
        Assert.Equal([ChangeKinds.CredentialRotated], await TokenTests.KindsAsync(api, ChangeResources.Credential(id)));
    }

    [Fact]
    public async Task Rotate_ToAnotherOneThanBefore_IsRefused()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await api.EnrolAsync("host-a");
        var (next, other) = (TokenText.Create(), TokenText.Create());
        await (await RotateAsync(agent.Client, next)).ReadAsync(FleetJson.Default.RotateResult);
        await (await RotateAsync(agent.Client, other)).ProblemAsync(HttpStatusCode.Conflict, "credential-replaced");
        Assert.Equal(HttpStatusCode.Unauthorized, (await RotateAsync(api.Client(other), other)).StatusCode);
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Rotate_OntoACredentialThatExists_IsRefused()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await api.EnrolAsync("host-a");
        await api.EnrolAsync("host-b");
        foreach (var credential in await TokenTests.ListAsync(api, string.Empty))
        {
            var request = new RotateRequest(credential.Id, TokenText.Hash(TokenText.Create()));
            await (await agent.Client.PostAsJsonAsync(Routes.Credential("host-a"), request, FleetJson.Default.RotateRequest))
                .ProblemAsync(HttpStatusCode.Conflict, "credential-exists");
        }

        await (await agent.Client.PostAsJsonAsync(Routes.Credential("host-a"), new RotateRequest("X", "Y"), FleetJson.Default.RotateRequest))
            .ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
    }

    [Fact]
    public async Task Rotate_Often_LeavesNoHeapOfSpentCredentials()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        await using var api = await ApiHost.StartAsync(time: time);
        var client = (await api.EnrolAsync("host-a")).Client;
        for (var i = 0; i < 10; i++)
        {
            var next = TokenText.Create();
            await (await RotateAsync(client, next)).ReadAsync(FleetJson.Default.RotateResult);
            client = api.Client(next);
            time.Advance(TimeSpan.FromMinutes(6));
        }

        Assert.True((await TokenTests.ListAsync(api, "?kind=agent")).Count <= 2);
    }

    private static Task<HttpResponseMessage> RotateAsync(HttpClient client, string next)
    {
        Assert.True(TokenText.TryGetId(next, out var id));
        return client.PostAsJsonAsync(Routes.Credential("host-a"), new RotateRequest(id, TokenText.Hash(next)), FleetJson.Default.RotateRequest);
    }

    private static Task<HttpResponseMessage> BeatAsync(HttpClient client, TestAgent agent) => client.PostAsJsonAsync(
        Routes.Heartbeat("host-a"), new Contracts.Agents.HeartbeatRequest(agent.Incarnation, []), FleetJson.Default.HeartbeatRequest);
}
