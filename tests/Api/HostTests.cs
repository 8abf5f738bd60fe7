using System.Net;
using System.Net.Http.Json;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Hosts;
using Fleet.Contracts.Migrations;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests;

/// <summary>What operators say of hosts, and what follows from it.</summary>
public sealed class HostTests
{
    [Fact]
    public async Task Drain_AndBack_IsShownAndLoggedOnceEachWithItsReason()
    {
        await using var world = await GateWorld.StartAsync();
        var before = await HostAsync(world, "host-b");
        var drained = await (await DrainAsync(world, "host-b")).ReadAsync(FleetJson.Default.HostResource);
        Assert.True(drained.Drained && drained.Version > before.Version);
        Assert.Equal(drained.Version, (await (await DrainAsync(world, "host-b")).ReadAsync(FleetJson.Default.HostResource)).Version);
        Assert.Equal(HttpStatusCode.NoContent, (await UndrainAsync(world, "host-b")).StatusCode);
        Assert.Equal(HttpStatusCode.NoContent, (await UndrainAsync(world, "host-b")).StatusCode);

        Assert.False((await HostAsync(world, "host-b")).Drained);
        await using var db = world.Api.Services.GetRequiredService<StoreContexts>().OpenReader();
        var changes = await db.Changes.Where(row => row.Kind == ChangeKinds.HostDrained || row.Kind == ChangeKinds.HostUndrained).OrderBy(row => row.Revision).ToListAsync();
        Assert.Equal([("hosts/host-b", "test"), ("hosts/host-b", null)], changes.Select(row => (row.Resource, row.Reason)));
    }

    [Fact]
    public async Task Drain_OfAnUnknownHostWithoutAReasonOrStale_IsRefused()
    {
        await using var world = await GateWorld.StartAsync();
        await (await DrainAsync(world, "nobody")).ProblemAsync(HttpStatusCode.NotFound, "unknown-host");
        await (await UndrainAsync(world, "nobody")).ProblemAsync(HttpStatusCode.NotFound, "unknown-host");
        await (await DrainAsync(world, "host-b", " ")).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        using var request = new HttpRequestMessage(HttpMethod.Put, Routes.HostDrain("host-b"))
        {
            Content = JsonContent.Create(new DrainRequest("x"), FleetJson.Default.DrainRequest),
            Headers = { { "If-Match", "\"1\"" } },
        };
        await (await world.Api.Admin.SendAsync(request)).ProblemAsync(HttpStatusCode.PreconditionFailed, "stale");
        Assert.False((await HostAsync(world, "host-b")).Drained);

        var answer = await world.Api.Admin.GetAsync(new Uri(Routes.Host("host-b"), UriKind.Relative));
        using var matching = new HttpRequestMessage(HttpMethod.Delete, Routes.HostDrain("host-b")) { Headers = { { "If-Match", answer.Headers.ETag!.Tag } } };
        Assert.Equal(HttpStatusCode.NoContent, (await world.Api.Admin.SendAsync(matching)).StatusCode);
    }

    [Fact]
    public async Task DrainedHost_TakesNothingNewAndKeepsWhatItHas()
    {
        await using var world = await GateWorld.StartAsync();
        await DrainAsync(world, "host-a");
        await (await world.Api.Admin.PutVmAsync("vm-2", "host-a")).ProblemAsync(HttpStatusCode.Conflict, "host-drained");
        await (await world.Api.Admin.GetAsync(new Uri(Routes.Vm("vm-2"), UriKind.Relative))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");

        // What is there can be described anew, found poisoned, and taken away.
        var larger = new[] { ApiCalls.Memory64MiB[0] with { Bytes = 128 << 20 } };
        Assert.Equal(HttpStatusCode.OK, (await world.Api.Admin.PutVmAsync(GateWorld.Vm, "host-a", larger)).StatusCode);
        var permit = await world.GrantAsync();
        Assert.Equal(("host-b", permit.Epoch), ((await world.VmAsync()).Host, permit.Epoch));
    }

    [Fact]
    public async Task Migrate_ToADrainedHost_IsDeniedEarly()
    {
        await using var world = await GateWorld.StartAsync();
        await DrainAsync(world, "host-b");
        Assert.Equal(["target-drained"], GateWorld.Codes(await (await world.PutAsync("m1", "host-b")).ProblemAsync(HttpStatusCode.Conflict, "gate-denied")));

        await world.BeginAsync("m2", "host-c");
        await DrainAsync(world, "host-c");
        Assert.Equal(["target-drained"], (await world.MigrationAsync("m2")).Reasons.Select(reason => reason.Code));
        Assert.Equal(["target-drained"], GateWorld.Codes(await (await world.SwitchAsync("m2")).ProblemAsync(HttpStatusCode.Conflict, "gate-denied")));
        Assert.Equal(MigrationStates.Preparing, (await world.MigrationAsync("m2")).State);
        await UndrainAsync(world, "host-c");
        Assert.Equal(HttpStatusCode.Accepted, (await world.SwitchAsync("m2")).StatusCode);
    }

    [Fact]
    public async Task Drain_OfTheTargetOfASwitchoverUnderWay_DoesNotStopIt()
    {
        await using var world = await GateWorld.SwitchingAsync();
        await DrainAsync(world, "host-b");
        await world.SealAsync(world.A);
        await GateWorld.AckAsync(world.B);
        Assert.Equal("m1", (await world.PermitAsync()).Migration);
    }

    [Fact]
    public async Task Rebuild_OntoADrainedHost_IsRefused()
    {
        await using var world = await GateWorld.StartAsync();
        await DrainAsync(world, "host-b");
        world.FallSilent();
        await (await world.RebuildAsync("host-b")).ProblemAsync(HttpStatusCode.Conflict, "host-drained");
    }

    [Fact]
    public async Task Labels_ReplaceEachOtherAndHostsAreFoundByThem()
    {
        await using var world = await GateWorld.StartAsync();
        var first = await (await LabelAsync(world, "host-a", """{"rack":"r1","zone/x":"a=\"b\""}""")).ReadAsync(FleetJson.Default.HostResource);
        Assert.Equal(first.Version, (await (await LabelAsync(world, "host-a", """{"zone/x":"a=\"b\"","rack":"r1"}""")).ReadAsync(FleetJson.Default.HostResource)).Version);
        await LabelAsync(world, "host-b", """{"rack":"r1"}""");
        await LabelAsync(world, "host-c", """{"note":"\"rack\":\"r1\"","rack2":"r1","RACK":"r1"}""");

        Assert.Equal(["host-a", "host-b"], await ListAsync(world, "?label=rack=r1"));
        Assert.Equal(["host-a"], await ListAsync(world, $"?label=rack=r1&label=zone/x={Uri.EscapeDataString("a=\"b\"")}"));
        Assert.Empty(await ListAsync(world, "?label=rack=r"));
        Assert.Equal(["host-c"], await ListAsync(world, "?label=RACK=r1"));
        Assert.Empty((await (await LabelAsync(world, "host-a", "{}")).ReadAsync(FleetJson.Default.HostResource)).Labels);
        Assert.Equal(["host-b"], await ListAsync(world, "?label=rack=r1"));
    }

    [Fact]
    public async Task List_FilteredByStateAndDrain_PagesOverWhatIsLeft()
    {
        await using var world = await GateWorld.StartAsync();
        await world.Api.EnrolAsync("host-0");
        await DrainAsync(world, "host-b");
        Assert.Equal(["host-b"], await ListAsync(world, "?drained=true"));
        Assert.Equal(["host-0", "host-a", "host-c"], await ListAsync(world, "?drained=false"));
        Assert.Equal(["host-0"], await ListAsync(world, "?state=offline"));
        Assert.Equal(["host-a", "host-c"], await ListAsync(world, "?state=online&drained=false"));
        var page = await PageAsync(world, "?state=online&limit=2");
        Assert.Equal(["host-a", "host-b"], page.Items.Select(host => host.Id));
        page = await PageAsync(world, $"?state=online&limit=2&after={page.Next}");
        Assert.Equal(["host-c"], page.Items.Select(host => host.Id));
        Assert.Null(page.Next);
        world.FallSilent();
        Assert.Equal(["host-a", "host-b", "host-c"], await ListAsync(world, "?state=unknown"));
    }

    [Theory]
    [InlineData("""{"":"x"}""", "invalid-request")]
    [InlineData("""{"-a":"x"}""", "invalid-request")]
    [InlineData("""{"a b":"x"}""", "invalid-request")]
    [InlineData("""{"a":null}""", "invalid-request")]
    [InlineData("""{"a":"\n"}""", "invalid-request")]
    [InlineData("""{"a":1}""", "malformed-body")]
    [InlineData("""{"a":"x","a":"y"}""", "malformed-body")]
    [InlineData("[]", "malformed-body")]
    public async Task Labels_OfAnotherForm_AreRefused(string json, string code)
    {
        await using var world = await GateWorld.StartAsync();
        await (await LabelAsync(world, "host-a", json)).ProblemAsync(HttpStatusCode.BadRequest, code);
        Assert.Empty((await HostAsync(world, "host-a")).Labels);
    }

    [Fact]
    public async Task Labels_TooManyOrTooLong_AreRefused()
    {
        await using var world = await GateWorld.StartAsync();
        var many = string.Join(',', Enumerable.Range(0, 65).Select(number => $"\"l{number}\":\"\""));
        await (await LabelAsync(world, "host-a", $"{{{many}}}")).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        await (await LabelAsync(world, "host-a", $"{{\"a\":\"{new string('x', 257)}\"}}")).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        await (await LabelAsync(world, "host-a", $"{{\"{new string('x', 65)}\":\"\"}}")).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        await (await LabelAsync(world, "nobody", "{}")).ProblemAsync(HttpStatusCode.NotFound, "unknown-host");
    }

    [Theory]
    [InlineData("?state=gone")]
    [InlineData("?drained=1")]
    [InlineData("?label=rack")]
    [InlineData("?label==x")]
    public async Task List_WithABadFilter_IsRefused(string query)
    {
        await using var world = await GateWorld.StartAsync();
        await (await world.Api.Admin.GetAsync(new Uri(Routes.Hosts + query, UriKind.Relative))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
    }

    private static Task<HttpResponseMessage> DrainAsync(GateWorld world, string host, string reason = "test") =>
        world.Api.Admin.PutAsJsonAsync(Routes.HostDrain(host), new DrainRequest(reason), FleetJson.Default.DrainRequest);

    private static Task<HttpResponseMessage> UndrainAsync(GateWorld world, string host) =>
        world.Api.Admin.DeleteAsync(new Uri(Routes.HostDrain(host), UriKind.Relative));

    private static Task<HttpResponseMessage> LabelAsync(GateWorld world, string host, string json) =>
        world.Api.Admin.SendJsonAsync(HttpMethod.Put, Routes.HostLabels(host), json);

    private static async Task<HostResource> HostAsync(GateWorld world, string host) =>
        await (await world.Api.Admin.GetAsync(new Uri(Routes.Host(host), UriKind.Relative))).ReadAsync(FleetJson.Default.HostResource);

    private static async Task<ItemList<HostResource>> PageAsync(GateWorld world, string query) =>
        await (await world.Api.Admin.GetAsync(new Uri(Routes.Hosts + query, UriKind.Relative))).ReadAsync(FleetJson.Default.ItemListHostResource);

    private static async Task<IEnumerable<string>> ListAsync(GateWorld world, string query) =>
        (await PageAsync(world, query)).Items.Select(host => host.Id);
}
