using System.Net;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hosts;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;

namespace Fleet.Api.Tests;

/// <summary>What is taken and what is refused while VMs are quarantined after a restore, and the override for hosts that are dead.</summary>
public sealed class QuarantineTests
{
    private static readonly MemoryRegion[] OtherMemory = [new("0x0", 32 << 20, 4096), new("0x4000000", 64 << 20, 4096)];

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task Quarantine_RefusesEveryChangeButNewPoison()
    {
        await using var world = await GateWorld.StartAsync();
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(1, 12));
        await world.GrantAsync();
        await world.QuarantineAsync();
        var before = await world.VmAsync();

        await (await world.PutAsync("m2", "host-c")).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
        await (await world.SwitchAsync()).ProblemAsync(HttpStatusCode.Conflict, "migration-ended");
        await (await world.CompleteAsync()).ProblemAsync(HttpStatusCode.Conflict, "migration-ended");
        Assert.Equal(HttpStatusCode.OK, (await world.AbortAsync(targetFenced: true)).StatusCode);
        await (await world.ResetAsync()).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
        await (await world.ParkAsync()).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
        await (await world.RebuildAsync("host-c")).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
        await (await world.Api.Admin.DeleteAsync(new Uri($"{Routes.Page(GateWorld.Vm, 1)}?reason=x", UriKind.Relative))).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
        await (await world.Api.Admin.DeleteAsync(new Uri(Routes.Vm(GateWorld.Vm), UriKind.Relative))).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
        await (await world.Api.Admin.PutVmAsync(GateWorld.Vm, "host-b", [new("0x0", 32 << 20, 4096)])).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
        Assert.Equal(before.Version, (await world.VmAsync()).Version);
        await world.A.StateAsync();
        await world.B.ClaimAndStateAsync(RestoreWorld.Statement(before.MemoryInstance).Live(60));

        // Neither does what agents say of the time before, or of the reset they were asked for.
        Assert.Equal("stale-migration", await world.LiftedAsync(world.B));
        Assert.Equal("stale-migration", await world.RenounceAsync(world.B));
        Assert.Equal("stale-migration", await world.SealAsync(world.B));
        Assert.Null(await world.ReportAsync(world.B, GateWorld.Gate(AgentReport.VmmGone, before, null, before.PlacementEpoch)));
        await GateWorld.AckAsync(world.B);
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(2, 12));
        Assert.Null(await world.PoisonAsync(world.B, 3, PoisonOrigins.Held));

        var after = await world.VmAsync();
        Assert.Equal((before.Host, before.PlacementEpoch, before.MemoryInstance, true), (after.Host, after.PlacementEpoch, after.MemoryInstance, after.Quarantined));
        Assert.Equal([1, 2, 3], await world.Api.FramesAsync());
    }

    /// <summary>The restored database has never heard that host-b holds the VM, or of the memory that its guest has.</summary>
    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Quarantine_ReportsOfTheHostThatHoldsTheGuest_AreTaken()
    {
        await using var world = await GateWorld.StartAsync();
        var vm = await world.VmAsync();
        await world.QuarantineAsync();
        await world.B.ClaimAndStateAsync(RestoreWorld.Statement(vm.MemoryInstance + 100).Live(vm.PlacementEpoch + 100));

        var report = TestAgent.Poison(1, vm with { MemoryInstance = vm.MemoryInstance + 100 }, 42) with { Origin = PoisonOrigins.Held };
        Assert.Null(await world.ReportAsync(world.B, report));

        Assert.Equal([42], await world.Api.FramesAsync());
    }

    [Fact]
    public async Task Fence_HostThatIsDead_EndsTheQuarantine()
    {
        await using var world = await GateWorld.StartAsync();
        var memory = (await world.VmAsync()).MemoryInstance;
        await (await world.Api.FenceAsync("host-c")).ProblemAsync(HttpStatusCode.Conflict, "not-quarantined");
        await world.QuarantineAsync();
        await world.A.StateAsync(RestoreWorld.Statement(memory).Live(50, "boot-a:1:1"));
        await (await world.Api.FenceAsync("host-a")).ProblemAsync(HttpStatusCode.Conflict, "fence-refused");
        await (await world.Api.FenceAsync("host-c")).ProblemAsync(HttpStatusCode.Conflict, "host-online");
        await (await world.Api.FenceAsync("host-z")).ProblemAsync(HttpStatusCode.NotFound, "unknown-host");
        await (await world.Api.FenceAsync("host-c", world.A.Client)).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        await world.B.ClaimAndStateAsync();
        await world.Api.AssertQuarantinedAsync();
        world.FallSilent();

        Assert.Equal(HttpStatusCode.OK, (await world.Api.FenceAsync("host-c")).StatusCode);

        await world.Api.AssertOwnedAsync("host-a");
        Assert.Equal(StatementStates.Fenced, (await world.Api.HostAsync("host-c")).Statement);
        Assert.Contains(ChangeKinds.HostFenced, await world.KindsAsync("hosts/host-c"));
    }

    /// <summary>
    /// The override was wrong, or the host came back: what it knows is not lost, and it learns that it must stop its guest. The memory that its
    /// guest has is not that of the owner's.
    /// </summary>
    [Fact]
    [Trait("Invariant", "I3")]
    [Trait("Invariant", "I4")]
    public async Task Fence_HostComesBack_ItsPagesJoinAndItIsToldWhoOwns()
    {
        await using var world = await GateWorld.StartAsync();
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(16000, 12));
        var memory = (await world.VmAsync()).MemoryInstance;
        await world.QuarantineAsync();
        await world.A.StateAsync(RestoreWorld.Statement(memory).Live(50, "boot-a:1:1"));
        await world.B.ClaimAndStateAsync();
        world.FallSilent();
        await world.Api.FenceAsync("host-c");
        var owned = await world.Api.AssertOwnedAsync("host-a");

        await world.C.AssertMustStateAsync();
        await world.C.ClaimAndStateAsync(RestoreWorld.Statement(memory, 8, 20000).Live(55, "boot-c:1:1") with { Memory = OtherMemory });

        Assert.Equal([8, 16000], await world.Api.FramesAsync());
        var after = await world.Api.AssertOwnedAsync("host-a");
        Assert.Equal((owned.PlacementEpoch, owned.Version), (after.PlacementEpoch, after.Version));
        Assert.Equal(owned.Memory, after.Memory);
        Assert.Equal(1, await world.Api.CountAsync(ChangeKinds.PagesNotTaken));
        var desired = await world.C.DesiredAsync(GateWorld.Vm);
        Assert.Equal(("host-a", false, after.PlacementEpoch), (desired.Owner, desired.Quarantined, desired.PlacementEpoch));
        Assert.Equal(StatementStates.Stated, (await world.Api.HostAsync("host-c")).Statement);

        // It never held the VM that anyone else remembers: what it reports from now on is not the VM's.
        Assert.Equal("not-placed-here", await world.PoisonAsync(world.C, 9, PoisonOrigins.Held));
    }

    /// <summary>A statement speaks for what a restore forgot, not for a VM whose owner is known: that needs no statement, but a placement.</summary>
    [Fact]
    [Trait("Invariant", "I3")]
    [Trait("Invariant", "I7")]
    public async Task Statement_OfAHostThatEnrolledAfterTheQuarantine_TouchesNoVmOfAnother()
    {
        await using var world = await GateWorld.StartAsync();
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(16000, 12));
        var memory = (await world.VmAsync()).MemoryInstance;
        await world.QuarantineAsync();
        await world.A.StateAsync(RestoreWorld.Statement(memory).Live(50, "boot-a:1:1"));
        await world.B.ClaimAndStateAsync();
        await world.C.ClaimAndStateAsync();
        var owned = await world.Api.AssertOwnedAsync("host-a");

        var late = await (await world.Api.EnrolAsync("host-z")).ClaimAsync(highestSeen: 1);
        Assert.True(late.Claim.StatementRequired);
        var lie = RestoreWorld.Statement(memory, 8, 20000).Live(await world.Api.CounterAsync(), "boot:1:1") with { Memory = OtherMemory, Attach = new VmAttach("handoff") };
        await late.StateAsync(lie, lie with { Vm = "vm-squatted" });

        Assert.Equal([16000], await world.Api.FramesAsync());
        var after = await world.Api.AssertOwnedAsync("host-a");
        Assert.Equal((owned.Generation, owned.Version), (after.Generation, after.Version));
        Assert.Equal(owned.Memory, after.Memory);
        await (await late.Client.GetAsync(Routes.DesiredVm("host-z", GateWorld.Vm))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
        Assert.Equal("not-placed-here", await world.PoisonAsync(late, 9, PoisonOrigins.Held));
        await (await world.Api.Admin.GetAsync(Routes.Vm("vm-squatted"))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
        Assert.Contains(world.Api.Logs, line => line.EventId == 2440 && line.Text.Contains("host-z", StringComparison.Ordinal) && line.Text.Contains("vm-squatted", StringComparison.Ordinal));
    }

    /// <summary>It has been said what the host holds: what comes later is made by those who may.</summary>
    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Statement_Repeated_MakesNoVm()
    {
        await using var world = await GateWorld.StartAsync();
        await world.QuarantineAsync();
        await world.A.StateAsync();
        var unknown = RestoreWorld.Statement(1) with { Vm = "vm-squatted", Memory = ApiCalls.Memory64MiB, Attach = new VmAttach("handoff") };

        await world.A.StateAsync(unknown);
        await (await world.Api.Admin.GetAsync(Routes.Vm("vm-squatted"))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
        await world.B.ClaimAndStateAsync();
        await world.C.ClaimAndStateAsync();
        await world.A.StateAsync(unknown);

        await (await world.Api.Admin.GetAsync(Routes.Vm("vm-squatted"))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
    }

    /// <summary>The backup is of a time before the only host's only VM.</summary>
    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Statement_OfTheOnlyHostWhereNoVmIsKnown_MakesItsVm()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await agent.ClaimAsync(highestSeen: 1_000_000);

        await agent.StateAsync(RestoreWorld.Statement(1, 7) with { Memory = ApiCalls.Memory64MiB, Attach = new VmAttach("handoff") });

        Assert.Equal([7], await api.FramesAsync());
    }

    /// <summary>The restored database says host-a; host-b runs the guest, and host-c is awaited for as long as it takes.</summary>
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Quarantine_NewPoison_IsToldToTheHostThatRunsTheGuest()
    {
        await using var world = await GateWorld.StartAsync();
        var memory = (await world.VmAsync()).MemoryInstance;
        await world.QuarantineAsync();
        await world.B.ClaimAndStateAsync(RestoreWorld.Statement(memory).Live(60));
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        await using var events = world.B.StreamAsync(new DesiredView(), stop).GetAsyncEnumerator(stop.Token);
        await UntilAsync(events, "snapshot-end");
        var seen = await world.B.DesiredAsync(GateWorld.Vm);
        Assert.Empty(await world.B.RefetchAsync(seen));

        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(2, 12));
        Assert.Equal([GateWorld.Vm], await world.B.RefetchAsync(seen));
        await UntilAsync(events, "delta");

        seen = await world.B.DesiredAsync(GateWorld.Vm);
        Assert.Empty(await world.B.RefetchAsync(seen));
        await world.A.StateAsync(RestoreWorld.Statement(memory, 3));
        Assert.Equal([GateWorld.Vm], await world.B.RefetchAsync(seen));
        await UntilAsync(events, "delta");
    }

    /// <summary>A host that was never heard of before has nothing that a restored database could have forgotten.</summary>
    [Fact]
    public async Task CreateVm_AfterTheQuarantine_DoesNotWaitForANewHost()
    {
        await using var world = await GateWorld.StartAsync();
        await world.QuarantineAsync();
        await world.A.StateAsync();
        await world.B.ClaimAndStateAsync();
        await world.C.ClaimAndStateAsync();

        var late = await (await world.Api.EnrolAsync("host-z")).ClaimAsync(spool: new SpoolPosition(Guid.NewGuid().ToString("N"), 0));

        Assert.False(late.Claim.StatementRequired);
        Assert.Equal(StatementStates.Stated, (await world.Api.HostAsync("host-z")).Statement);
        Assert.Equal(HttpStatusCode.Created, (await world.Api.Admin.PutVmAsync("vm-2", "host-z")).StatusCode);
        Assert.Equal("vm-2", (await late.DesiredAsync("vm-2")).Vm);
    }

    /// <summary>What a new host's first claim shows of a former life: it may hold what was forgotten.</summary>
    [Theory]
    [InlineData("highest-seen")]
    [InlineData("incarnation")]
    [InlineData("spool")]
    [Trait("Invariant", "I4")]
    public async Task CreateVm_AfterTheQuarantine_WaitsForAHostOfAFormerLifeUntilItIsFenced(string what)
    {
        await using var world = await GateWorld.StartAsync();
        await world.QuarantineAsync();
        await world.A.StateAsync();
        await world.B.ClaimAndStateAsync();
        await world.C.ClaimAndStateAsync();
        var agent = await world.Api.EnrolAsync("host-z");
        await (await world.Api.FenceAsync("host-z")).ProblemAsync(HttpStatusCode.NotFound, "unknown-host");

        await (what switch
        {
            "highest-seen" => agent.ClaimAsync(highestSeen: 1),
            "incarnation" => agent.ClaimAsync(lastIncarnation: 1),
            _ => agent.ClaimAsync(spool: new SpoolPosition(agent.SpoolId, 1)),
        });

        Assert.True(agent.Claim.StatementRequired);
        await (await world.Api.Admin.PutVmAsync("vm-2", "host-a")).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
        await (await world.Api.FenceAsync("host-z")).ProblemAsync(HttpStatusCode.Conflict, "host-online");
        await (await world.Api.FenceAsync("host-c")).ProblemAsync(HttpStatusCode.Conflict, "not-quarantined");
        world.FallSilent();
        Assert.Equal(HttpStatusCode.OK, (await world.Api.FenceAsync("host-z")).StatusCode);
        Assert.Equal(HttpStatusCode.Created, (await world.Api.Admin.PutVmAsync("vm-2", "host-a")).StatusCode);
    }

    /// <summary>Its claim shows nothing, because it lost its state; the database remembers that it was a host.</summary>
    [Fact]
    [Trait("Invariant", "I4")]
    public async Task Claim_OfAHostThatTheDatabaseKnows_MustState()
    {
        await using var world = await GateWorld.StartAsync(withVm: false);
        await world.QuarantineAsync();
        await world.A.StateAsync();
        await world.B.ClaimAsync();

        Assert.True(world.B.Claim.StatementRequired);
        await (await world.Api.Admin.PutVmAsync("vm-2", "host-a")).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
    }

    /// <summary>A guest that was stated on host-a is another's; deleted and made again under the same name, the VM is none of host-a's.</summary>
    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Delete_OfAVmThatAHostStated_ConcernsItNoLonger()
    {
        await using var world = await GateWorld.StartAsync();
        var memory = (await world.VmAsync()).MemoryInstance;
        await world.QuarantineAsync();
        await world.A.StateAsync(RestoreWorld.Statement(memory).Live(50, "boot-a:1:1"));
        await world.B.ClaimAndStateAsync(RestoreWorld.Statement(memory).Live(51));
        await world.C.ClaimAndStateAsync();
        await world.Api.ReleaseAsync("host-b");
        Assert.Equal("host-b", (await world.A.DesiredAsync(GateWorld.Vm)).Owner);
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        await using var events = world.A.StreamAsync(new DesiredView(), stop).GetAsyncEnumerator(stop.Token);
        await UntilAsync(events, "snapshot-end");

        Assert.Equal(HttpStatusCode.NoContent, (await world.Api.Admin.DeleteAsync(Routes.Vm(GateWorld.Vm))).StatusCode);
        await UntilAsync(events, "vm-removed");
        await world.Api.Admin.CreateVmAsync(GateWorld.Vm, "host-c");

        await (await world.A.Client.GetAsync(Routes.DesiredVm("host-a", GateWorld.Vm))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
    }

    /// <summary>That it was parked is what the backup says; a host may have it running since.</summary>
    [Fact]
    [Trait("Invariant", "I4")]
    public async Task Quarantine_OfAVmThatWasParked_DoesNotSayThatItIs()
    {
        await using var world = await GateWorld.StartAsync();
        var park = await (await world.ParkAsync()).ReadAsync(FleetJson.Default.MigrationResource);
        Assert.Null(await world.SealAsync(world.A, park.Id, instance: null));
        Assert.Equal(HttpStatusCode.OK, (await world.ParkAsync()).StatusCode);

        await world.QuarantineAsync();

        await (await world.ParkAsync()).ProblemAsync(HttpStatusCode.Conflict, "vm-quarantined");
    }

    private static async Task UntilAsync(IAsyncEnumerator<(string Name, int Count)> events, string name)
    {
        do
        {
            Assert.True(await events.MoveNextAsync(), $"The stream ended without {name}.");
        }
        while (events.Current.Name != name);
    }
}
