using Fleet.Api.Tests.Support;
using Fleet.Client;

namespace Fleet.OpenApi.Tests;

/// <summary>The client that NSwag makes from the committed document, against the API itself; agents are simulated on their own wire.</summary>
public sealed class ClientTests
{
    private static readonly VmRequest Vm = new()
    {
        Host = "host-a",
        Memory = [new MemoryRegion { GuestPhysicalAddress = "0x0", Bytes = 64 << 20, PageBytes = 4096 }],
        Attach = new VmAttach { Kind = "handoff" },
    };

    [Fact]
    public async Task Client_TellsTheStoryOfAVmThatMigratesWithItsPoison()
    {
        await using var world = await GateWorld.StartAsync(withVm: false);
        var client = new FleetClient(world.Api.Admin);

        var created = await client.PutVmAsync(GateWorld.Vm, Vm);
        Assert.Equal(("vm-1", "host-a", 0L), (created.Id, created.Host, created.PoisonedPages));
        Assert.Equal(created.Version, (await client.PutVmAsync(GateWorld.Vm, Vm)).Version);

        var added = await client.AddPagesAsync(GateWorld.Vm, new AddPagesRequest { Pages = [new PageReport { Frame = 7, Shift = 12, Class = "srar", Source = "operator" }], Reason = "DIMM A3" });
        Assert.Equal((1, 0), (added.Added, added.Already));
        await world.A.ArmAsync(GateWorld.Vm);
        var page = Assert.Single((await client.ListPagesAsync(GateWorld.Vm, limit: 10)).Items);
        Assert.Equal((7L, "0x7000", "srar", "armed"), (page.Frame, page.GuestPhysicalAddress, page.Class, Assert.Single(page.Hosts).State));
        Assert.Equal("armed", Assert.Single((await client.GetVmAsync(GateWorld.Vm, wait: "1s")).Enforcement).State);

        await world.ReportAsync(world.A, TestAgent.Hit(1, await world.VmAsync(), 7, count: 3));
        var hit = Assert.Single((await client.ListHitsAsync(vm: GateWorld.Vm, since: DateTimeOffset.UnixEpoch)).Items);
        Assert.Equal((7L, 3L, "mce-injected"), (hit.Frame, hit.Count, hit.Outcome));

        await MigrateAsync(world, client, added.Generation);
        var kinds = (await client.ListChangesAsync(resource: "migrations/m1")).Items.Select(change => change.Kind);
        Assert.Equal(["migration.created", "migration.granted", "migration.completed"], kinds.Where(kind => kind is "migration.created" or "migration.granted" or "migration.completed"));
    }

    [Fact]
    public async Task Client_OfARefusal_GetsATypedProblem()
    {
        await using var world = await GateWorld.StartAsync();
        var client = new FleetClient(world.Api.Admin);
        await client.DrainHostAsync("host-c", new DrainRequest { Reason = "DIMM A3" });

        var denied = await RefusedAsync(() => client.PutMigrationAsync("m1", new MigrationRequest { Vm = GateWorld.Vm, TargetHost = "host-c", Attach = Vm.Attach }), 409, "gate-denied");
        Assert.Contains("target-drained", denied.Reasons!.Select(reason => reason.Code));
        var invalid = await RefusedAsync(() => client.ListVmsAsync(limit: 5000), 400, "invalid-request");
        Assert.NotEmpty(Assert.Single(invalid.Errors!).Value);
        await RefusedAsync(() => client.GetVmAsync("vm-2"), 404, "unknown-vm");
        await RefusedAsync(() => client.DeleteVmAsync(GateWorld.Vm, if_Match: "\"1\""), 412, "stale");
        await RefusedAsync(() => client.RevokeTokenAsync("0123456789abcdef"), 404, "unknown-token");
        await RefusedAsync(() => new FleetClient(world.Api.Client(null)).ListVmsAsync(), 401, "unauthenticated");
        await RefusedAsync(() => new FleetClient(world.A.Client).ListVmsAsync(), 403, "forbidden");

        var agent = new FleetClient(world.A.Client);
        var gap = await RefusedAsync(
            () => agent.SendReportsAsync("host-a", new ReportsRequest { Incarnation = world.A.Incarnation, SpoolId = world.A.SpoolId, Reports = [Gone(5)] }), 409, "spool-gap");
        Assert.Equal(1, gap.Expected);
    }

    private static async Task MigrateAsync(GateWorld world, FleetClient client, long generation)
    {
        var migration = await client.PutMigrationAsync("m1", new MigrationRequest { Vm = GateWorld.Vm, TargetHost = "host-b", Attach = new VmAttach { Kind = "handoff" } });
        Assert.Equal(("host-a", "host-b", "preparing"), (migration.SourceHost, migration.TargetHost, migration.State));

        // NSwag hands out the first success alone; the other one is an exception, but of its own type.
        var accepted = await Assert.ThrowsAsync<ApiException<MigrationResource>>(() => client.SwitchOverAsync("m1", body: new SwitchoverRequest()));
        Assert.Equal((202, "switching"), (accepted.StatusCode, accepted.Result.State));
        Assert.Null(await world.SealAsync(world.A));
        await GateWorld.AckAsync(world.B);
        var permit = await client.SwitchOverAsync("m1", wait: "1s", body: new SwitchoverRequest());
        Assert.Equal(("m1", generation), (permit.Migration, permit.Generation));

        await RefusedAsync(() => client.CompleteMigrationAsync("m1"), 409, "not-lifted");
        Assert.Null(await world.LiftedAsync(world.B));
        Assert.Equal("completed", (await client.CompleteMigrationAsync("m1")).State);
        var vm = await client.GetVmAsync(GateWorld.Vm);
        Assert.Equal(("host-b", permit.Epoch, 1L), (vm.Host, vm.PlacementEpoch, vm.PoisonedPages));
    }

    /// <summary>A status that the document does not name would be an exception without a body: the types would not match.</summary>
    private static async Task<ProblemBody> RefusedAsync(Func<Task> call, int status, string code)
    {
        var exception = await Assert.ThrowsAsync<ApiException<ProblemBody>>(call);
        Assert.Equal((status, code), (exception.StatusCode, exception.Result.Code));
        Assert.Equal(status, exception.Result.Status);
        return exception.Result;
    }

    private static AgentReport Gone(long sequence) => new()
    {
        Sequence = sequence,
        Kind = "vmm-gone",
        Vm = GateWorld.Vm,
        FirstAt = DateTimeOffset.UnixEpoch,
        LastAt = DateTimeOffset.UnixEpoch,
        Count = 1,
    };
}
