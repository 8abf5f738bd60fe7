using System.Net;
using System.Net.Http.Json;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hosts;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;

namespace Fleet.Api.Tests;

/// <summary>The quarantine after a restore from backup: what ends it, and what is as it was when it has ended (GATE, B17 and B18).</summary>
public sealed class RestoreTests
{
    [Fact]
    [Trait("Invariant", "I2")]
    public async Task B17_Statements_PagesJoinTheSetAndNothingIsCleared()
    {
        await using var world = await GateWorld.StartAsync();
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(1, 12), new PageReport(512, 21));
        var memory = (await world.VmAsync()).MemoryInstance;
        await world.QuarantineAsync();

        await world.A.StateAsync(RestoreWorld.Statement(memory, 2, 600));
        Assert.Equal([1, 2, 512], await world.Api.FramesAsync());
        await world.B.ClaimAndStateAsync(RestoreWorld.Statement(memory, 3).Live(50));
        await world.Api.AssertQuarantinedAsync();
        await world.C.ClaimAndStateAsync();

        Assert.Equal([1, 2, 3, 512], await world.Api.FramesAsync());
        var vm = await world.Api.AssertOwnedAsync("host-b");
        Assert.Equal(4, vm.PoisonedPages);
        Assert.Equal(vm.Generation, vm.PlacementEpoch);
        Assert.Equal(StatementStates.Stated, (await world.Api.HostAsync("host-c")).Statement);
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task B18_LiveRightOnAnotherHost_OwnsAndItsAgentIsToldSo()
    {
        await using var world = await GateWorld.StartAsync();
        var vm = await world.VmAsync();
        await world.QuarantineAsync();
        await world.A.StateAsync(RestoreWorld.Statement(vm.MemoryInstance).SealedTo(vm.PlacementEpoch, "boot-b:1:1"));
        await world.B.ClaimAndStateAsync(RestoreWorld.Statement(vm.MemoryInstance).Live(vm.PlacementEpoch + 1) with { Attach = new VmAttach("handoff", Socket: "/run/b.sock") });

        // While it is quarantined it concerns everyone who has stated something of it; it gives no right.
        Assert.True((await world.A.DesiredAsync(GateWorld.Vm)).Quarantined);
        Assert.True((await world.B.DesiredAsync(GateWorld.Vm)).Quarantined);
        await world.C.ClaimAndStateAsync();

        var desired = await world.B.DesiredAsync(GateWorld.Vm);
        Assert.Equal(("host-b", false, "/run/b.sock"), (desired.Owner, desired.Quarantined, desired.Attach.Socket));
        await (await world.A.Client.GetAsync(Routes.DesiredVm("host-a", GateWorld.Vm))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");

        // And it migrates as any other.
        await world.GrantAsync("m2", world.B, world.C);
        await world.Api.AssertOwnedAsync("host-c");
        Assert.Null(await world.LiftedAsync(world.C, "m2"));
        await world.CompleteAsync("m2");
        await (await world.B.Client.GetAsync(Routes.DesiredVm("host-b", GateWorld.Vm))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
    }

    [Fact]
    public async Task NobodyEverRanIt_MayBeStartedColdWithTheSetAsItWas()
    {
        await using var world = await GateWorld.StartAsync();
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(1, 12));
        await world.QuarantineAsync();
        await world.A.StateAsync();
        await world.B.ClaimAndStateAsync();
        await world.C.ClaimAndStateAsync();

        var vm = await world.Api.AssertOwnedAsync("host-a");
        Assert.Equal((vm.PlacementEpoch, vm.PlacementEpoch), (vm.MemoryInstance, vm.Generation));
        Assert.Equal([1], await world.Api.FramesAsync());
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task TwoLiveRights_StayQuarantinedUntilTheOverrideNamesOne_AndTheOtherLearnsThatItMustStop()
    {
        await using var world = await GateWorld.StartAsync();
        var memory = (await world.VmAsync()).MemoryInstance;
        await world.QuarantineAsync();
        await world.A.StateAsync(RestoreWorld.Statement(memory).Live(50, "boot-a:1:1"));
        await world.B.ClaimAndStateAsync(RestoreWorld.Statement(memory).Live(51));
        await (await world.Api.ReleaseAsync("host-b")).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
        await world.C.ClaimAndStateAsync();

        await world.Api.AssertQuarantinedAsync(QuarantineReasons.TwoLiveRights);
        await (await world.RebuildAsync("host-c")).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
        await (await world.ParkAsync()).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
        await (await world.Api.ReleaseAsync("host-z")).ProblemAsync(HttpStatusCode.Conflict, "unknown-host");
        Assert.Equal(HttpStatusCode.OK, (await world.Api.ReleaseAsync("host-b")).StatusCode);

        await world.Api.AssertOwnedAsync("host-b");
        var fenced = await world.A.DesiredAsync(GateWorld.Vm);
        Assert.Equal(("host-b", false), (fenced.Owner, fenced.Quarantined));
        Assert.True(fenced.PlacementEpoch > 50);
        await (await world.Api.ReleaseAsync("host-b")).ProblemAsync(HttpStatusCode.Conflict, "not-quarantined");
    }

    [Fact]
    public async Task SealedTowardsAHostThatNobodyKnows_StaysQuarantinedUntilTheOverride()
    {
        await using var world = await GateWorld.StartAsync();
        var vm = await world.VmAsync();
        await world.QuarantineAsync();
        await world.A.StateAsync(RestoreWorld.Statement(vm.MemoryInstance).SealedTo(vm.PlacementEpoch, "boot-z:1:1"));
        await world.B.ClaimAndStateAsync();
        await world.C.ClaimAndStateAsync();

        await world.Api.AssertQuarantinedAsync(QuarantineReasons.SealedToUnknownHost);

        // The host enrols again and states: now it can be told after all.
        var late = await world.Api.EnrolAsync("host-z");
        await late.ClaimAndStateAsync(RestoreWorld.Statement(vm.MemoryInstance, 77).Live(vm.PlacementEpoch + 3, "boot-z:1:1"));
        await world.Api.AssertOwnedAsync("host-z");
        Assert.Equal([77], await world.Api.FramesAsync());
    }

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task VmThatTheDatabaseDoesNotKnow_IsMadeAgainFromTheStatement()
    {
        await using var world = await GateWorld.StartAsync();
        await world.QuarantineAsync();
        var unknown = RestoreWorld.Statement(400, 9).Live(500, "boot-a:1:1") with { Vm = "vm-new", Memory = ApiCalls.Memory64MiB, Attach = new VmAttach("handoff") };
        await world.A.StateAsync(unknown, unknown with { Vm = "vm-nothing-known", Memory = null, Attach = null });
        await world.B.ClaimAndStateAsync();
        Assert.True((await world.Api.Admin.GetVmAsync("vm-new")).Quarantined);
        await world.C.ClaimAndStateAsync();

        var vm = await world.Api.Admin.GetVmAsync("vm-new");
        Assert.Equal(("host-a", 400, 1, false), (vm.Host, vm.MemoryInstance, vm.PoisonedPages, vm.Quarantined));
        await (await world.Api.Admin.GetAsync(Routes.Vm("vm-nothing-known"))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
    }

    /// <summary>What is not known may run on a host that has not spoken yet: it must not be started a second time.</summary>
    [Fact]
    [Trait("Invariant", "I4")]
    public async Task CreateVm_WhileStatementsAreAwaited_IsRefused()
    {
        await using var world = await GateWorld.StartAsync();
        await world.QuarantineAsync();
        await (await world.Api.Admin.PutVmAsync("vm-2", "host-a")).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
        await world.A.StateAsync();
        await world.B.ClaimAndStateAsync();
        await (await world.Api.Admin.PutVmAsync("vm-2", "host-a")).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
        await world.C.ClaimAndStateAsync();
        Assert.Equal(HttpStatusCode.Created, (await world.Api.Admin.PutVmAsync("vm-2", "host-a")).StatusCode);
    }

    [Fact]
    public async Task PagesOutsideTheMemory_TakeTheLayoutOfTheLiveGuestAndAreLoggedOtherwise()
    {
        await using var world = await GateWorld.StartAsync();
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(16000, 12));
        var memory = (await world.VmAsync()).MemoryInstance;
        await world.QuarantineAsync();
        await world.A.StateAsync(RestoreWorld.Statement(memory, 1, 20000));
        Assert.Equal([1, 16000], await world.Api.FramesAsync());
        Assert.Equal(1, await world.Api.CountAsync(ChangeKinds.PagesNotTaken));

        MemoryRegion[] other = [new("0x0", 32 << 20, 4096), new("0x4000000", 64 << 20, 4096)];
        await world.B.ClaimAndStateAsync(RestoreWorld.Statement(memory, 20000).Live(60) with { Memory = other });

        // 16000 is of memory that the guest does not have.
        Assert.Equal([1, 20000], await world.Api.FramesAsync());
        Assert.Equal(other, (await world.VmAsync()).Memory);
        Assert.Equal(1, await world.Api.CountAsync(ChangeKinds.PagesNotTaken));
    }

    [Fact]
    [Trait("Invariant", "I5")]
    public async Task Statement_Repeated_ChangesNothing()
    {
        await using var world = await GateWorld.StartAsync();
        var memory = (await world.VmAsync()).MemoryInstance;
        await world.QuarantineAsync();
        var statement = RestoreWorld.Statement(memory, 1, 2).Live(50, "boot-a:1:1");
        await world.A.StateAsync(statement);
        var counter = await world.Api.CounterAsync();
        await world.A.StateAsync(statement);
        Assert.Equal(counter, await world.Api.CounterAsync());

        await world.B.ClaimAndStateAsync();
        await world.C.ClaimAndStateAsync();
        var ended = await world.Api.AssertOwnedAsync("host-a");
        await world.A.StateAsync(statement, RestoreWorld.Statement(memory, 3) with { Vm = "vm-other" });
        Assert.Equal((ended.Generation, ended.PoisonedPages), await world.VmAsync() is var now ? (now.Generation, now.PoisonedPages) : default);

        // A claim of a host that has stated asks for no other.
        await world.A.ClaimAsync();
        Assert.Equal((1, false), (world.A.Claim.StoreEpoch, world.A.Claim.StatementRequired));
        Assert.Equal(HttpStatusCode.OK, (await world.A.BeatAsync()).StatusCode);
    }

    [Fact]
    public async Task Statement_OfAnotherProcessOrStoreEpochOrFromTheFuture_IsRefused()
    {
        await using var world = await GateWorld.StartAsync();
        var old = world.A.Incarnation;
        await world.QuarantineAsync();

        await (await Send(new StatementRequest(old, 1, []))).ProblemAsync(HttpStatusCode.Conflict, "agent-superseded");
        await (await Send(new StatementRequest(world.A.Incarnation, 0, []))).ProblemAsync(HttpStatusCode.Conflict, "statement-required");
        await (await Send(new StatementRequest(world.A.Incarnation, 2, []))).ProblemAsync(HttpStatusCode.Conflict, "statement-required");
        await (await Send(new StatementRequest(world.A.Incarnation, 1, [RestoreWorld.Statement(1).Live(StoreEpochs.FloorOf(3))]))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        await (await Send(new StatementRequest(world.A.Incarnation, 1, [RestoreWorld.Statement(1) with { Live = true }]))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        await (await Send(new StatementRequest(world.A.Incarnation, 1, [RestoreWorld.Statement(1), RestoreWorld.Statement(1)]))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        await (await world.B.Client.PostAsJsonAsync(Routes.Statement("host-a"), new StatementRequest(world.A.Incarnation, 1, []), FleetJson.Default.StatementRequest))
            .ProblemAsync(HttpStatusCode.Forbidden, "wrong-host");
        Assert.Equal(StatementStates.Pending, (await world.Api.HostAsync("host-a")).Statement);

        Task<HttpResponseMessage> Send(StatementRequest request) =>
            world.A.Client.PostAsJsonAsync(Routes.Statement("host-a"), request, FleetJson.Default.StatementRequest);
    }

    [Fact]
    [Trait("Invariant", "I6")]
    public async Task Start_InTheMiddleOfTheQuarantine_GoesOnWhereItWas()
    {
        using var folder = new TempFolder();
        var api = await ApiHost.StartAsync(folder);
        var a = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var b = await (await api.EnrolAsync("host-b")).ClaimAsync();
        var vm = await api.Admin.CreateVmAsync(GateWorld.Vm, "host-a");
        await a.ClaimAsync(highestSeen: 1_000_000);
        await a.StateAsync(RestoreWorld.Statement(vm.MemoryInstance, 4));
        await api.DisposeAsync();

        await using var again = await ApiHost.StartAsync(folder);
        (a, b) = (a.MoveTo(again), b.MoveTo(again));
        await again.AssertQuarantinedAsync();
        Assert.Equal(1, StoreEpochs.Of(await again.CounterAsync()));
        Assert.Equal(HttpStatusCode.OK, (await a.BeatAsync()).StatusCode);
        await b.AssertMustStateAsync();
        Assert.Equal((StatementStates.Stated, StatementStates.Pending), ((await again.HostAsync("host-a")).Statement, (await again.HostAsync("host-b")).Statement));

        await b.ClaimAndStateAsync(RestoreWorld.Statement(vm.MemoryInstance, 5).Live(50));
        await again.AssertOwnedAsync("host-b");
        Assert.Equal([4, 5], await again.FramesAsync());
    }

    /// <summary>Restored once more before the hosts had finished: the statements of the first time count for nothing.</summary>
    [Fact]
    public async Task SecondRestore_BeginsAgain()
    {
        await using var world = await GateWorld.StartAsync();
        var memory = (await world.VmAsync()).MemoryInstance;
        await world.QuarantineAsync();
        await world.A.StateAsync(RestoreWorld.Statement(memory, 4).Live(50, "boot-a:1:1"));

        await world.B.ClaimAsync(highestSeen: StoreEpochs.FloorOf(3), boot: "boot-b");

        Assert.Equal((4, true), (world.B.Claim.StoreEpoch, world.B.Claim.StatementRequired));
        await world.A.AssertMustStateAsync();
        await world.A.ClaimAndStateAsync();
        await world.B.StateAsync(RestoreWorld.Statement(memory).Live(51));
        await world.C.ClaimAndStateAsync();
        await world.Api.AssertOwnedAsync("host-b");
        Assert.Equal([4], await world.Api.FramesAsync());
    }
}
