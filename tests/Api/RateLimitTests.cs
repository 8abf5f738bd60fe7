using System.Net;
using System.Net.Http.Json;
using Fleet.Api.Security;
using Fleet.Api.Security.Limits;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Security;
using Fleet.Data.Storage;
using Microsoft.AspNetCore.Http;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Tests;

public sealed class RateLimitTests
{
    private const int Many = 40;
    private static readonly Uri Vms = new(Routes.Vms, UriKind.Relative);

    // A bucket of two, refilled once a second: of forty requests at once, some are too many.
    private static readonly string[] Small =
    [
        "--Fleet:RateLimits:Loopback=true",
        .. new[] { "Lists", "Heartbeat", "Reports", "Anonymous", "Failures" }.SelectMany(lane =>
            new[] { $"--Fleet:RateLimits:{lane}:PerSecond=1", $"--Fleet:RateLimits:{lane}:Burst=2" }),
    ];

    [Fact]
    public async Task Lane_ThatIsFull_Is429AndTakesFromNoOtherLaneAndNoOtherPrincipal()
    {
        await using var api = await ApiHost.StartAsync(null, null, Small);
        var (busy, other) = (api.Client(await SecurityTests.MintAsync(api, "read migrations:write")), api.Client(await SecurityTests.MintAsync(api, "read")));
        await AssertLimitedAsync(await ManyAsync(() => busy.GetAsync(Vms)));
        Assert.Equal(HttpStatusCode.NotFound, (await busy.GetAsync(new Uri(Routes.Migration("m-1"), UriKind.Relative))).StatusCode);
        Assert.Equal(HttpStatusCode.OK, (await other.GetAsync(Vms)).StatusCode);
        Assert.All(await ManyAsync(() => api.Admin.GetAsync(Vms)), answer => Assert.Equal(HttpStatusCode.OK, answer.StatusCode));
        Assert.All(await ManyAsync(() => api.Client(null).GetAsync(new Uri("/health/live", UriKind.Relative))), answer => Assert.Equal(HttpStatusCode.OK, answer.StatusCode));
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Agent_ThatHammersItsHeartbeat_CanStillReport()
    {
        await using var api = await ApiHost.StartAsync(null, null, Small);
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await AssertLimitedAsync(await ManyAsync(() => agent.BeatAsync()));
        Assert.Equal(HttpStatusCode.OK, (await agent.SendAsync()).StatusCode);
    }

    [Fact]
    public async Task Enrolment_IsLimitedByAddress()
    {
        await using var api = await ApiHost.StartAsync(null, null, Small);
        var (nobody, guess) = (api.Client(null), TokenText.Create());
        Assert.True(TokenText.TryGetId(guess, out var id));
        await AssertLimitedAsync(await ManyAsync(() => nobody.PostAsJsonAsync(
            Routes.Enroll, new EnrollRequest("host-a", TokenText.Create(), id, TokenText.Hash(guess)), FleetJson.Default.EnrollRequest)));
    }

    [Fact]
    public async Task FailedAuthentication_IsLimitedByAddressButAValidTokenFromThereIsNot()
    {
        await using var api = await ApiHost.StartAsync(null, null, Small);
        var valid = api.Client(await SecurityTests.MintAsync(api, Scopes.Read));
        await AssertLimitedAsync(await ManyAsync(() => api.Client(TokenText.Create()).GetAsync(Vms)));
        Assert.Equal(HttpStatusCode.OK, (await valid.GetAsync(Vms)).StatusCode);
    }

    [Fact]
    public async Task Loopback_AndLimitsThatAreOff_AreNotLimited()
    {
        foreach (var settings in new string[][] { [.. Small[1..]], [.. Small, "--Fleet:RateLimits:Enabled=false"] })
        {
            await using var api = await ApiHost.StartAsync(null, null, settings);
            var client = api.Client(await SecurityTests.MintAsync(api, Scopes.Read));
            Assert.All(await ManyAsync(() => client.GetAsync(Vms)), answer => Assert.Equal(HttpStatusCode.OK, answer.StatusCode));
            Assert.All(await ManyAsync(() => api.Client(null).GetAsync(Vms)), answer => Assert.Equal(HttpStatusCode.Unauthorized, answer.StatusCode));
        }
    }

    [Fact]
    public async Task Admin_IsLimitedWhereThatIsAskedFor()
    {
        await using var api = await ApiHost.StartAsync(null, null, [.. Small, "--Fleet:RateLimits:Admin=true"]);
        await AssertLimitedAsync(await ManyAsync(() => api.Admin.GetAsync(Vms)));
    }

    [Fact]
    public async Task Start_WithLimitsThatAreNone_IsRefused() =>
        await Assert.ThrowsAsync<OptionsValidationException>(async () => await ApiHost.StartAsync(null, null, "--Fleet:RateLimits:Lists:PerSecond=0", "--Fleet:RateLimits:Lists:Burst=0"));

    [Fact]
    public async Task Lanes_NameOperationsThatExist()
    {
        await using var api = await ApiHost.StartAsync();
        var ids = (await ApiOperation.ReadAllAsync(api)).Select(operation => operation.Id).ToList();
        Assert.All(Lanes.ByOperation.Keys, id => Assert.Contains(id, ids));
    }

    [Theory]
    [InlineData("192.0.2.7", "192.0.2.7")]
    [InlineData("::ffff:192.0.2.7", "192.0.2.7")]
    [InlineData("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64")]
    public void Address_IsTheWholeNetworkOfAnIPv6Caller(string address, string key)
    {
        var http = new DefaultHttpContext();
        http.Connection.RemoteIpAddress = IPAddress.Parse(address);
        Assert.Equal((key, false), (http.AddressKey(), http.IsLocal()));
    }

    [Fact]
    public async Task Refusals_AreToldOnceAndCountedAndNeverStored()
    {
        await using var api = await ApiHost.StartAsync();
        var reader = api.Client(await SecurityTests.MintAsync(api, Scopes.Read));
        var before = await RevisionAsync(api);
        for (var i = 0; i < 20; i++)
        {
            await (await api.Client(TokenText.Create()).GetAsync(Vms)).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");
            await (await reader.DeleteAsync(new Uri($"/v1/vms/vm-1/pages/{i}?reason=x", UriKind.Relative))).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
            await (await reader.GetAsync(new Uri(Routes.Tokens, UriKind.Relative))).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        }

        Assert.Equal(
            ["forbidden DELETE v1/vms/{vm}/pages/{frame}", "unauthenticated any any"],
            Told(api, 2110).Select(text => $"{Word(text, "Refused: ", ",")} {Word(text, ", at ", ".")}".Replace(" /", " ", StringComparison.Ordinal)).Order());
        Assert.Contains("requests_refused", await api.Admin.GetStringAsync(new Uri("/metrics", UriKind.Relative)), StringComparison.Ordinal);
        var refusals = api.Services.GetRequiredService<Refusals>();
        refusals.Flush();
        Assert.Equal(2, Told(api, 2111).Count(text => text.EndsWith(", 19 times more", StringComparison.Ordinal)));
        refusals.Flush();
        Assert.Equal(2, Told(api, 2111).Count);
        Assert.Equal(before, await RevisionAsync(api));
    }

    [Fact]
    public async Task Refusals_OfMoreKindsThanTheBound_AreOneKind()
    {
        await using var api = await ApiHost.StartAsync();
        var refusals = api.Services.GetRequiredService<Refusals>();
        for (var i = 0; i < Refusals.MostKinds * 2; i++)
        {
            var http = new DefaultHttpContext();
            http.Connection.RemoteIpAddress = new IPAddress([10, 0, (byte)(i >> 8), (byte)i]);
            refusals.Add(http, "unauthenticated");
        }

        Assert.Equal(Refusals.MostKinds + 1, Told(api, 2110).Count);
    }

    [Fact]
    public async Task Overrides_ThatAreRefused_AreTold()
    {
        await using var world = await GateWorld.StartAsync();
        await (await world.RebuildAsync("host-b")).ProblemAsync(HttpStatusCode.Conflict, "host-online");
        var line = Assert.Single(Told(world.Api, 2110));
        Assert.Contains("host-online", line, StringComparison.Ordinal);
        Assert.Contains("/rebuild", line, StringComparison.Ordinal);
    }

    private static List<string> Told(ApiHost api, int eventId) => [.. api.Logs.Where(line => line.EventId == eventId && line.Category.StartsWith("Fleet.", StringComparison.Ordinal)).Select(line => line.Text)];

    private static string Word(string text, string after, string before)
    {
        var rest = text[(text.IndexOf(after, StringComparison.Ordinal) + after.Length)..];
        return rest[..rest.IndexOf(before, StringComparison.Ordinal)];
    }

    private static async Task<long> RevisionAsync(ApiHost api)
    {
        await using var db = api.Services.GetRequiredService<StoreContexts>().OpenReader();
        return await db.Counter.Select(row => row.Revision).SingleAsync();
    }

    private static Task<HttpResponseMessage[]> ManyAsync(Func<Task<HttpResponseMessage>> send) => Task.WhenAll(Enumerable.Range(0, Many).Select(_ => send()));

    private static async Task AssertLimitedAsync(HttpResponseMessage[] answers)
    {
        var limited = answers.Where(answer => answer.StatusCode == HttpStatusCode.TooManyRequests).ToList();
        Assert.NotEmpty(limited);
        Assert.True(limited.Count < Many, "Nobody was let in at all.");
        await limited[0].ProblemAsync(HttpStatusCode.TooManyRequests, "rate-limited");
        Assert.True(limited[0].Headers.RetryAfter?.Delta >= TimeSpan.FromSeconds(1));
    }
}
