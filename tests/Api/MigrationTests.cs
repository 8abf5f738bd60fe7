using System.Net;
using System.Net.Http.Json;
using Fleet.Api.Agents.Push;
using Fleet.Api.Security;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests;

public sealed class MigrationTests
{
    [Fact]
    public async Task Put_Repeated_ChangesNothingAndNeverRevivesOneThatHasEnded()
    {
        await using var world = await GateWorld.StartAsync();
        Assert.Equal(HttpStatusCode.Created, (await world.PutAsync("m1", "host-b")).StatusCode);
        Assert.Equal(HttpStatusCode.OK, (await world.PutAsync("m1", "host-b")).StatusCode);
        await (await world.PutAsync("m1", "host-c")).ProblemAsync(HttpStatusCode.Conflict, "migration-exists");
        Assert.Equal("aborted", (await (await world.AbortAsync()).ReadAsync(FleetJson.Default.MigrationResource)).State);
        Assert.Equal(HttpStatusCode.OK, (await world.AbortAsync()).StatusCode);
        Assert.Equal("aborted", (await world.BeginAsync("m1")).State);
        await (await world.SwitchAsync()).ProblemAsync(HttpStatusCode.Conflict, "migration-ended");
        await world.BeginAsync("m2");

        var all = await ListAsync(world, "?limit=1");
        Assert.Equal("m1", all.Items.Single().Id);
        Assert.Equal("m2", (await ListAsync(world, $"?limit=1&after={all.Next}")).Items.Single().Id);
        Assert.Equal("m2", (await ListAsync(world, "?state=preparing&vm=vm-1")).Items.Single().Id);
        await (await world.Api.Admin.GetAsync(new Uri(Routes.Migration("nobody"), UriKind.Relative))).ProblemAsync(HttpStatusCode.NotFound, "unknown-migration");
    }

    [Fact]
    public async Task Put_OfWhatCannotSucceed_IsDeniedWithReasons()
    {
        await using var world = await GateWorld.StartAsync();
        await (await world.PutAsync("m1", "nobody")).ProblemAsync(HttpStatusCode.Conflict, "unknown-host");
        await (await world.PutAsync("m1", "host-b", "nobody")).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
        Assert.Equal(["target-is-source"], await DeniedAsync("host-a"));
        await world.Api.EnrolAsync("host-d");
        Assert.Equal(["target-unclaimed"], await DeniedAsync("host-d"));
        var incapable = new ClaimRequest("boot", "1", "6.1", new Dictionary<string, string> { ["policy.marker.memfd"] = "no: EINVAL", ["attach.handoff"] = "no: x" });
        await world.C.Client.PostAsJsonAsync(Routes.Claim("host-c"), incapable, FleetJson.Default.ClaimRequest);
        Assert.Equal(["capability", "capability"], await DeniedAsync("host-c"));
        Assert.Equal(HttpStatusCode.Created, (await world.PutAsync("m1", "host-b")).StatusCode);

        async Task<IEnumerable<string?>> DeniedAsync(string host) =>
            GateWorld.Codes(await (await world.PutAsync("m1", host)).ProblemAsync(HttpStatusCode.Conflict, "gate-denied"));
    }

    /// <summary>Neither is spooled: what is wrong with them must keep no report from arriving.</summary>
    [Fact]
    [Trait("Invariant", "I2")]
    public async Task AckAndObstacle_ThatAreMalformed_KeepNoReportBackAndTheAckCountsForNothing()
    {
        await using var world = await GateWorld.SwitchingAsync();
        Assert.Null(await world.SealAsync(world.A));
        var ack = await GateWorld.MakeAckAsync(world.B);
        var vm = await world.VmAsync();
        GateAck[] malformed =
        [
            ack with { Digest = ack.Digest.ToUpperInvariant() + "0" }, ack with { VmmInstance = "" }, ack with { Unservable = [new(-1, 12)] }, ack with { Vm = "-" }, ack with { Migration = "m 1" },
        ];
        foreach (var acks in malformed)
        {
            // The report of a host that never held the VM is refused for that alone; it is read all the same.
            Assert.Equal("not-placed-here", await world.ReportAsync(world.B, TestAgent.Poison(1, vm, 7), acks));
        }

        Assert.Equal(MigrationStates.Switching, (await world.MigrationAsync("m1")).State);
        Assert.Equal(malformed.Length, world.Api.Logs.Count(line => line.EventId == 2421));

        await GateWorld.ObstructAsync(world.B, new GateObstacle(GateWorld.Vm, "m1", new string('c', 65), "a\nb" + new string('d', 600)), new GateObstacle(GateWorld.Vm, "m1", "", ""));
        var reasons = (await world.MigrationAsync("m1")).Reasons;
        Assert.Contains(reasons, reason => reason.Code == new string('c', 64) && reason.Detail == "a b" + new string('d', 497));
        Assert.Contains(reasons, reason => reason is { Code: "unknown", Detail: null });

        await GateWorld.SendAckAsync(world.B, ack);
        Assert.Equal(MigrationStates.Granted, (await world.MigrationAsync("m1")).State);
    }

    [Theory]
    [InlineData("busy-userfaultfd")]
    [InlineData("layout")]
    [InlineData("mappings")]
    [InlineData("capability")]
    [InlineData("device-dma")]
    [InlineData("vmm-without-barrier")]
    public async Task Switchover_WithAnObstacleOfTheTarget_IsDeniedWithItUntilItIsGone(string code)
    {
        await using var world = await GateWorld.StartAsync();
        await world.BeginAsync();
        var obstacle = new GateObstacle(GateWorld.Vm, "m1", code, "why");
        await GateWorld.ObstructAsync(world.A, obstacle);
        Assert.Empty((await world.MigrationAsync("m1")).Reasons);
        await GateWorld.ObstructAsync(world.B, obstacle);
        Assert.Equal([new GateReason(code, "why")], (await world.MigrationAsync("m1")).Reasons);
        Assert.Equal([code], GateWorld.Codes(await (await world.SwitchAsync()).ProblemAsync(HttpStatusCode.Conflict, "gate-denied")));
        Assert.Equal("preparing", (await world.MigrationAsync("m1")).State);
        await GateWorld.ObstructAsync(world.B);
        Assert.Equal(HttpStatusCode.Accepted, (await world.SwitchAsync()).StatusCode);
    }

    [Fact]
    public async Task Ready_OfATargetWithADevice_IsNot()
    {
        await using var world = await GateWorld.StartAsync();
        await world.BeginAsync();
        var desired = await world.B.DesiredAsync(GateWorld.Vm);
        await world.B.BeatAsync(new VmStatus(GateWorld.Vm, desired.MemoryInstance, desired.Generation, null, null, "failed", GateStatus.DeviceDma, []));
        Assert.Equal("preparing", (await world.MigrationAsync("m1")).State);
        Assert.Contains(("host-b", "failed", GateStatus.DeviceDma), (await world.VmAsync()).Enforcement.Select(host => (host.Host, host.State, host.Reason)));
    }

    [Fact]
    public async Task Ready_IsWhatTheTargetSaysOfThePresentGeneration()
    {
        await using var world = await GateWorld.StartAsync();
        await world.BeginAsync();
        var desired = await world.B.DesiredAsync(GateWorld.Vm);
        var staged = new VmStatus(GateWorld.Vm, desired.MemoryInstance, desired.Generation, null, null, "pending", GateStatus.Staged, []);
        var waiting = world.MigrationAsync("m1", "?wait=60s");
        Assert.Empty((await (await world.B.BeatAsync(staged)).ReadAsync(FleetJson.Default.HeartbeatResult)).Refetch);
        Assert.Equal("ready", (await waiting).State);

        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(5, 12));
        Assert.Equal("preparing", (await world.MigrationAsync("m1")).State);
        Assert.Equal([GateWorld.Vm], (await (await world.B.BeatAsync(staged)).ReadAsync(FleetJson.Default.HeartbeatResult)).Refetch);
        await world.B.ArmAsync(GateWorld.Vm);
        Assert.Equal("ready", (await world.MigrationAsync("m1")).State);
        Assert.Equal([("host-a", "unknown"), ("host-b", "armed")], (await world.VmAsync()).Enforcement.Select(host => (host.Host, host.State)));
        Assert.Equal(["unknown", "armed"], (await world.Api.Admin.GetPagesAsync(GateWorld.Vm)).Items[0].Hosts.Select(host => host.State));
    }

    [Fact]
    public async Task Switchover_WaitedFor_AnswersWithThePermitOnceItIsGranted()
    {
        await using var world = await GateWorld.StartAsync();
        await world.BeginAsync();
        var waiting = world.SwitchAsync(wait: "?wait=60s");
        while ((await world.MigrationAsync("m1")).State != "switching")
        {
            await Task.Yield();
        }

        await world.SealAsync(world.A);
        await GateWorld.AckAsync(world.B);
        Assert.Equal((await world.VmAsync()).PlacementEpoch, (await (await waiting).ReadAsync(FleetJson.Default.Permit)).Epoch);
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Desired_DuringAMigration_IsSeenByItsHostsEachWithItsOwnAttachment()
    {
        await using var world = await GateWorld.StartAsync();
        await AssertAsync(null, null);
        await world.BeginAsync();
        await AssertAsync("preparing", "preparing");
        await world.SwitchAsync();
        await AssertAsync("switching", "switching");
        await world.SealAsync(world.A);
        await GateWorld.AckAsync(world.B);
        await AssertAsync("granted", "granted");
        Assert.Equal(await world.PermitAsync(), (await world.A.DesiredAsync(GateWorld.Vm)).Migration!.Permit);
        await world.LiftedAsync(world.B);
        await world.CompleteAsync();
        Assert.Equal(HttpStatusCode.NotFound, (await GetAsync(world.A)).StatusCode);
        Assert.Null((await world.B.DesiredAsync(GateWorld.Vm)).Migration);
        Assert.Equal(GateWorld.TargetAttach, (await world.VmAsync()).Attach);

        async Task AssertAsync(string? source, string? target)
        {
            var a = await world.A.DesiredAsync(GateWorld.Vm);
            Assert.Equal((source, null), (a.Migration?.State, a.Attach.Socket));
            if (target is not null)
            {
                var b = await world.B.DesiredAsync(GateWorld.Vm);
                Assert.Equal((target, GateWorld.TargetAttach, a.Owner), (b.Migration?.State, b.Attach, b.Owner));
            }

            Assert.Equal(HttpStatusCode.NotFound, (await GetAsync(world.C)).StatusCode);
        }

        static Task<HttpResponseMessage> GetAsync(TestAgent agent) => agent.Client.GetAsync(new Uri(Routes.DesiredVm(agent.Host, GateWorld.Vm), UriKind.Relative));
    }

    [Fact]
    public async Task Push_SendsTheVmWholeOnEveryChangeAndItsRemovalAtTheEnd()
    {
        await using var world = await GateWorld.StartAsync();
        var services = world.Api.Services;
        var hub = services.GetRequiredService<PushHub>();
        var source = new DesiredFeed(hub.Subscribe("host-a", 1), services.GetRequiredService<StoreContexts>(), services.GetRequiredService<DesiredReader>());
        var target = new DesiredFeed(hub.Subscribe("host-b", 1), services.GetRequiredService<StoreContexts>(), services.GetRequiredService<DesiredReader>());
        await source.OpenAsync(null, CancellationToken.None);
        await target.OpenAsync(null, CancellationToken.None);

        await world.BeginAsync();
        Assert.Equal(("vm", "vm"), await NextAsync());
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(5, 12));
        Assert.Equal(("delta", "delta"), await NextAsync());
        await world.SwitchAsync();
        Assert.Equal(("vm", "vm"), await NextAsync());
        await world.SealAsync(world.A);
        Assert.Equal((string.Empty, string.Empty), await NextAsync());
        await GateWorld.AckAsync(world.B);
        Assert.Equal(("vm", "vm"), await NextAsync());
        await world.LiftedAsync(world.B);
        await world.CompleteAsync();
        Assert.Equal(("vm-removed", "vm"), await NextAsync());

        async Task<(string Source, string Target)> NextAsync() => (
            string.Join(',', (await source.NextAsync(CancellationToken.None)).Select(item => item.Event)),
            string.Join(',', (await target.NextAsync(CancellationToken.None)).Select(item => item.Event)));
    }

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Park_EndsWithTheSealAndAMigrationWithoutASourceRestores()
    {
        await using var world = await GateWorld.StartAsync();
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(5, 12));
        var parking = await (await world.ParkAsync()).ReadAsync(FleetJson.Default.MigrationResource);
        Assert.Equal(("switching", "host-a", null), (parking.State, parking.SourceHost, parking.TargetHost));
        Assert.Equal(parking.Id, (await (await world.ParkAsync()).ReadAsync(FleetJson.Default.MigrationResource)).Id);
        await GateWorld.ObstructAsync(world.A, new GateObstacle(GateWorld.Vm, parking.Id, "vmm-without-barrier", "why"));
        Assert.Contains(new GateReason("vmm-without-barrier", "why"), (await world.MigrationAsync(parking.Id)).Reasons);
        var before = await world.VmAsync();
        Assert.Equal("stale-migration", await world.SealAsync(world.A, parking.Id, "boot:1:1"));
        Assert.Null(await world.SealAsync(world.A, parking.Id, null));
        var parked = await world.VmAsync();
        Assert.Null(parked.Host);
        Assert.True(parked.PlacementEpoch > before.PlacementEpoch);
        Assert.Equal("completed", (await (await world.ParkAsync()).ReadAsync(FleetJson.Default.MigrationResource)).State);
        Assert.Equal([("host-a", false)], await world.PlacementsAsync());

        await world.BeginAsync("restore");
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(6, 12));
        await world.SwitchAsync("restore");
        await GateWorld.AckAsync(world.B, "restore");
        Assert.Equal("host-b", (await world.VmAsync()).Host);
        Assert.Null(await world.RenounceAsync(world.B, "restore"));
        Assert.Null((await world.VmAsync()).Host);
        Assert.Equal(2, (await world.VmAsync()).PoisonedPages);
    }

    [Fact]
    public async Task Preparing_PastItsTime_FailsWithoutMovingTheEpoch()
    {
        await using var world = await GateWorld.StartAsync();
        await world.BeginAsync();
        var before = await world.VmAsync();
        world.Time.Advance(TimeSpan.FromHours(1));
        await world.SweepAsync();
        Assert.Equal("failed", (await world.MigrationAsync("m1")).State);
        Assert.Equal(before.PlacementEpoch, (await world.VmAsync()).PlacementEpoch);
    }

    [Fact]
    public async Task Delete_WhilePreparing_FailsTheMigration()
    {
        await using var world = await GateWorld.StartAsync();
        await world.BeginAsync();
        Assert.Equal(HttpStatusCode.NoContent, (await world.Api.Admin.DeleteAsync(Routes.Vm(GateWorld.Vm))).StatusCode);
        var migration = await world.MigrationAsync("m1");
        Assert.Equal(("failed", "vm-deleted"), (migration.State, migration.Reasons.Single().Code));
        await (await world.SwitchAsync()).ProblemAsync(HttpStatusCode.Conflict, "migration-ended");
    }

    [Fact]
    public async Task Overrides_NeedTheRightToFence()
    {
        await using var world = await GateWorld.StartAsync();
        await world.BeginAsync();
        var client = world.Api.Client(await SecurityTests.MintAsync(world.Api, Scopes.MigrationsWrite));
        await (await client.PostAsJsonAsync(Routes.Switchover("m1"), new SwitchoverRequest(true, "x"), FleetJson.Default.SwitchoverRequest))
            .ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        await (await client.PostAsJsonAsync(Routes.Abort("m1"), new AbortRequest("x", true), FleetJson.Default.AbortRequest))
            .ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        await (await client.PostAsJsonAsync(Routes.Park(GateWorld.Vm), new ParkRequest("x", true), FleetJson.Default.ParkRequest))
            .ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        await (await client.PostAsJsonAsync(Routes.Rebuild(GateWorld.Vm), new RebuildRequest("host-b", "x"), FleetJson.Default.RebuildRequest))
            .ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        await (await world.Api.Admin.PostAsJsonAsync(Routes.Switchover("m1"), new SwitchoverRequest(true), FleetJson.Default.SwitchoverRequest))
            .ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
    }

    [Fact]
    public async Task B16_SourceFencedForAStreamThatHidesUnreadablePages_IsRefused()
    {
        await using var world = await GateWorld.StartAsync(withVm: false);
        var request = new VmRequest("host-a", ApiCalls.Memory64MiB, new VmAttach("qemu", QmpSocket: "/run/qmp"));
        await world.Api.Admin.PutAsJsonAsync(Routes.Vm(GateWorld.Vm), request, FleetJson.Default.VmRequest);
        await world.BeginAsync();
        world.FallSilent();
        await (await world.SwitchAsync(sourceFenced: true)).ProblemAsync(HttpStatusCode.Conflict, "fence-refused");
    }

    private static async Task<ItemList<MigrationResource>> ListAsync(GateWorld world, string query) =>
        await (await world.Api.Admin.GetAsync(new Uri(Routes.Migrations + query, UriKind.Relative))).ReadAsync(FleetJson.Default.ItemListMigrationResource);
}
