using System.Net;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Pages;
using Fleet.Data.Entities;

namespace Fleet.Api.Tests;

/// <summary>Lines B of GATE.md, "What broke the first design": silent data; as far as the control plane decides them.</summary>
public sealed class MigrationGateBTests
{
    [Fact]
    [Trait("Invariant", "IT")]
    public async Task B1_B5_B6_AckOfAVmmThatTheStreamDidNotEndIn_DoesNotGrant()
    {
        await using var world = await GateWorld.SwitchingAsync();
        await world.SealAsync(world.A, instance: "boot:1:1");
        await GateWorld.AckAsync(world.B, instance: "boot:2:2");
        var answer = await world.SwitchAsync();
        Assert.Equal(HttpStatusCode.Accepted, answer.StatusCode);
        Assert.Equal(["ack-vmm-instance"], (await answer.ReadAsync(FleetJson.Default.MigrationResource)).Reasons.Select(reason => reason.Code));
        await GateWorld.AckAsync(world.B, instance: "boot:1:1");
        Assert.Equal("boot:1:1", (await world.PermitAsync()).VmmInstance);
    }

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task B3_SealAheadOfItsSpool_IsRefusedAndBehindItCountsWithIt()
    {
        await using var world = await GateWorld.SwitchingAsync();
        await GateWorld.AckAsync(world.B);
        var vm = await world.VmAsync();
        var seal = GateWorld.Gate(AgentReport.Seal, vm, "m1", vm.PlacementEpoch, "boot:1:1") with { Sequence = 2 };
        var overtaking = new ReportsRequest(world.A.Incarnation, world.A.SpoolId, [seal]);
        await (await GateWorld.SendAsync(world.A, overtaking)).ProblemAsync(HttpStatusCode.Conflict, "spool-gap");
        Assert.Null((await world.MigrationAsync("m1")).Permit);

        var inOrder = overtaking with { Reports = [TestAgent.Poison(1, vm, 7) with { Origin = "held" }, seal] };
        Assert.Empty((await (await GateWorld.SendAsync(world.A, inOrder)).ReadAsync(FleetJson.Default.ReportsResult)).Rejected);
        Assert.Equal(["ack-generation"], (await world.MigrationAsync("m1")).Reasons.Select(reason => reason.Code));
        await GateWorld.AckAsync(world.B);
        Assert.Equal((await world.VmAsync()).Generation, (await world.PermitAsync()).Generation);
    }

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task B4_PoisonOfAFormerOwner_IsAddedAndLoggedAsLate()
    {
        await using var world = await GateWorld.StartAsync();
        await world.GrantAsync();
        Assert.Null(await world.PoisonAsync(world.A, 5, "held"));
        Assert.Null(await world.PoisonAsync(world.A, 6));
        Assert.Equal([5L, 6L], await world.FramesAsync());
        Assert.Equal(2, (await world.KindsAsync("vms/vm-1")).Count(kind => kind == ChangeKinds.LatePoison));
    }

    [Fact]
    public async Task B4_PoisonOfTheSealedSource_IsItsHostsFaultUntilItOwnsAgain()
    {
        await using var world = await GateWorld.StartAsync();
        await world.GrantAsync();
        Assert.Null(await world.PoisonAsync(world.A, 5, "sealed"));
        Assert.Empty(await world.FramesAsync());
        Assert.Contains(ChangeKinds.HostFault, await world.KindsAsync("hosts/host-a"));
        await world.RenounceAsync(world.B);
        Assert.Null(await world.PoisonAsync(world.A, 5, "sealed"));
        Assert.Equal([5L], await world.FramesAsync());
    }

    [Fact]
    [Trait("Invariant", "IT")]
    public async Task B5_MemoryFaultOfTheTarget_VoidsItsAck()
    {
        await using var world = await GateWorld.SwitchingAsync();
        await GateWorld.AckAsync(world.B);
        Assert.Null(await world.PoisonAsync(world.B, 9, "incoming"));
        await world.SealAsync(world.A);
        Assert.Equal(["ack-missing"], (await world.MigrationAsync("m1")).Reasons.Select(reason => reason.Code));
        Assert.Empty(await world.FramesAsync());

        await GateWorld.AckAsync(world.B, "m1", "boot:1:1", new PageKey(9, 12));
        var permit = await world.PermitAsync();
        Assert.Equal([9L], await world.FramesAsync());
        Assert.True((await world.VmAsync()).Generation > permit.Generation);
        Assert.Contains(ChangeKinds.HostFault, await world.KindsAsync("hosts/host-b"));
    }

    [Fact]
    public async Task B5_FaultAndFreshAckInOneRequest_GrantWithThePage()
    {
        await using var world = await GateWorld.SwitchingAsync();
        await world.SealAsync(world.A);
        var ack = await GateWorld.MakeAckAsync(world.B, "m1", "boot:1:1", new PageKey(9, 12));
        var fault = TestAgent.Poison(1, await world.VmAsync(), 9) with { Origin = "incoming" };
        Assert.Null(await world.ReportAsync(world.B, fault, ack));
        Assert.NotNull((await world.MigrationAsync("m1")).Permit);
        Assert.Equal([9L], await world.FramesAsync());
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task B9_ClearsAndResetsWhileSwitchingOrGranted_AreRefused()
    {
        await using var world = await GateWorld.StartAsync();
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(5, 12), new PageReport(6, 12));
        await world.BeginAsync();
        Assert.Equal(HttpStatusCode.NoContent, (await world.Api.Admin.DeleteAsync(Routes.Page(GateWorld.Vm, 6) + "?reason=x")).StatusCode);
        await (await world.ResetAsync()).ProblemAsync(HttpStatusCode.Conflict, "migration-active");
        await world.SwitchAsync();
        await RefusedAsync();
        await world.SealAsync(world.A);
        await GateWorld.AckAsync(world.B);
        await world.PermitAsync();
        await RefusedAsync();
        Assert.Equal([5L], await world.FramesAsync());

        async Task RefusedAsync()
        {
            await (await world.Api.Admin.DeleteAsync(Routes.Page(GateWorld.Vm, 5) + "?reason=x")).ProblemAsync(HttpStatusCode.Conflict, "migration-switching");
            await (await world.ResetAsync()).ProblemAsync(HttpStatusCode.Conflict, "migration-active");
        }
    }

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task B11_PagesThatTheTargetCannotServe_JoinTheSetWhole()
    {
        await using var world = await GateWorld.StartAsync();
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(513, 12));
        await world.BeginAsync();
        await world.SwitchAsync();
        await world.SealAsync(world.A);
        await GateWorld.AckAsync(world.B, "m1", "boot:1:1", new PageKey(512, 21));
        var permit = await world.PermitAsync();
        var pages = await world.Api.Admin.GetPagesAsync(GateWorld.Vm);
        Assert.Equal([(512L, 21)], pages.Items.Select(page => (page.Frame, page.Shift)));
        Assert.True(pages.Generation > permit.Generation && pages.Generation < permit.Epoch);
    }

    [Fact]
    [Trait("Invariant", "IT")]
    public async Task B12_Reset_WaitsUntilTheOwnersAgentAttestsThatTheOldRamIsGone()
    {
        await using var world = await GateWorld.StartAsync();
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(5, 12));
        var before = await world.VmAsync();
        var gone = GateWorld.Gate(AgentReport.VmmGone, before, null, null);
        Assert.Null(await world.ReportAsync(world.A, gone));
        Assert.Equal(before.MemoryInstance, (await world.VmAsync()).MemoryInstance);

        Assert.Equal(HttpStatusCode.Accepted, (await world.ResetAsync()).StatusCode);
        Assert.Equal(HttpStatusCode.Accepted, (await world.ResetAsync()).StatusCode);
        Assert.True((await world.A.DesiredAsync(GateWorld.Vm)).ResetWanted);
        Assert.Equal([5L], await world.FramesAsync());
        await (await world.PutAsync("m1", "host-b")).ProblemAsync(HttpStatusCode.Conflict, "reset-wanted");
        Assert.Equal("not-placed-here", await world.ReportAsync(world.B, gone));
        Assert.Equal(before.MemoryInstance, (await world.VmAsync()).MemoryInstance);

        Assert.Null(await world.ReportAsync(world.A, gone));
        var after = await world.VmAsync();
        Assert.True(after.MemoryInstance > before.MemoryInstance && after.PlacementEpoch > before.PlacementEpoch && after.Generation > before.Generation);
        Assert.Equal(("host-a", 0L, false), (after.Host, after.PoisonedPages, after.ResetWanted));
        Assert.Equal("stale-memory-instance", await world.ReportAsync(world.A, TestAgent.Poison(1, before, 5)));
    }
}
