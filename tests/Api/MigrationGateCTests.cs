using System.Net;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Pages;
using Fleet.Data.Entities;

namespace Fleet.Api.Tests;

/// <summary>Lines C of GATE.md, "What broke the first design": stuck; as far as the control plane decides them.</summary>
public sealed class MigrationGateCTests
{
    [Fact]
    public async Task C1_TargetVmmGoneBeforeTheGrant_AbortAndASecondMigrationSucceed()
    {
        await using var world = await GateWorld.SwitchingAsync();
        await world.SealAsync(world.A, instance: "boot:1:1");
        await GateWorld.AckAsync(world.B, instance: "boot:2:1");
        Assert.Equal(HttpStatusCode.OK, (await world.AbortAsync()).StatusCode);
        Assert.Equal("m2", (await world.GrantAsync("m2", instance: "boot:3:1")).Migration);
    }

    [Fact]
    public async Task C2_AgentOfTheTargetRestarted_OldAckIsWorthNothingAndThePermitStaysGood()
    {
        await using var world = await GateWorld.SwitchingAsync();
        await GateWorld.AckAsync(world.B);
        await world.B.ClaimAsync();
        await world.SealAsync(world.A);
        Assert.Equal(["ack-incarnation"], (await world.MigrationAsync("m1")).Reasons.Select(reason => reason.Code));
        await GateWorld.AckAsync(world.B);
        await world.PermitAsync();
        await world.B.ClaimAsync();
        Assert.Null(await world.LiftedAsync(world.B));
        Assert.Equal("completed", (await (await world.CompleteAsync()).ReadAsync(FleetJson.Default.MigrationResource)).State);
    }

    [Fact]
    public async Task C3_SwitchoverThatExpires_FreesTheSourceUnderANewEpoch()
    {
        await using var world = await GateWorld.SwitchingAsync();
        await world.SealAsync(world.A);
        var sealedAt = (await world.VmAsync()).PlacementEpoch;
        world.Time.Advance(TimeSpan.FromSeconds(60));
        await world.SweepAsync();
        var migration = await world.MigrationAsync("m1");
        Assert.Equal("failed", migration.State);
        Assert.Equal(["expired"], migration.Reasons.Select(reason => reason.Code));
        var vm = await world.VmAsync();
        Assert.Equal("host-a", vm.Host);
        Assert.True(vm.PlacementEpoch > sealedAt);
        await (await world.SwitchAsync()).ProblemAsync(HttpStatusCode.Conflict, "migration-ended");
        await world.GrantAsync("m2");
    }

    [Fact]
    public async Task C3_AckThatComesAfterTheTimeIsUp_DoesNotGrant()
    {
        await using var world = await GateWorld.SwitchingAsync();
        await world.SealAsync(world.A);
        var ack = await GateWorld.MakeAckAsync(world.B);
        world.Time.Advance(TimeSpan.FromSeconds(61));
        await GateWorld.SendAckAsync(world.B, ack);
        Assert.Equal("failed", (await world.MigrationAsync("m1")).State);
        Assert.Equal("host-a", (await world.VmAsync()).Host);
    }

    [Fact]
    public async Task C4_CompleteBeforeTheLift_IsRefused()
    {
        await using var world = await GateWorld.SwitchingAsync();
        await (await world.CompleteAsync()).ProblemAsync(HttpStatusCode.Conflict, "not-lifted");
        await world.SealAsync(world.A);
        await GateWorld.AckAsync(world.B);
        await (await world.CompleteAsync()).ProblemAsync(HttpStatusCode.Conflict, "not-lifted");
        Assert.Equal("stale-migration", await world.LiftedAsync(world.A));
        Assert.Null(await world.LiftedAsync(world.B));
        Assert.Equal("completed", (await (await world.CompleteAsync()).ReadAsync(FleetJson.Default.MigrationResource)).State);
        Assert.Equal(HttpStatusCode.OK, (await world.CompleteAsync()).StatusCode);
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task C5_SealOfAnOlderEpochHostOrMigration_DoesNotCount()
    {
        await using var world = await GateWorld.SwitchingAsync();
        var old = (await world.VmAsync()).PlacementEpoch;
        await world.AbortAsync();
        await world.BeginAsync("m2");
        Assert.Equal("stale-migration", await world.SealAsync(world.A, "m2"));
        await world.SwitchAsync("m2");
        Assert.Equal("stale-migration", await world.SealAsync(world.A, "m1", epoch: old));
        Assert.Equal("stale-migration", await world.SealAsync(world.A, "m2", epoch: old));
        Assert.Equal("not-placed-here", await world.SealAsync(world.C, "m2"));
        Assert.Equal("stale-migration", await world.SealAsync(world.B, "m2"));
        Assert.Equal("stale-migration", await world.SealAsync(world.A, "m2", instance: null));
        await GateWorld.AckAsync(world.B, "m2");
        Assert.Equal(["seal-missing"], (await world.MigrationAsync("m2")).Reasons.Select(reason => reason.Code));
    }

    [Fact]
    public async Task C7_DeadSource_IsOverriddenOnlyOnceItIsSilent()
    {
        await using var world = await GateWorld.SwitchingAsync();
        await (await world.SwitchAsync(sourceFenced: true)).ProblemAsync(HttpStatusCode.Conflict, "host-online");
        world.FallSilent();
        Assert.Equal(HttpStatusCode.Accepted, (await world.SwitchAsync(sourceFenced: true)).StatusCode);
        await GateWorld.AckAsync(world.B);
        Assert.Equal("host-b", (await world.VmAsync()).Host);
        Assert.NotNull(await world.PermitAsync());
        Assert.Contains(ChangeKinds.MigrationFenced, await world.KindsAsync("migrations/m1"));
    }

    [Fact]
    public async Task C7_DeadTarget_GivesTheVmBackUnderANewEpoch()
    {
        await using var world = await GateWorld.StartAsync();
        var permit = await world.GrantAsync();
        await (await world.AbortAsync(targetFenced: true)).ProblemAsync(HttpStatusCode.Conflict, "host-online");
        world.FallSilent();
        Assert.Equal(HttpStatusCode.OK, (await world.AbortAsync(targetFenced: true)).StatusCode);
        var vm = await world.VmAsync();
        Assert.Equal("host-a", vm.Host);
        Assert.True(vm.PlacementEpoch > permit.Epoch);
        Assert.Equal([("host-a", false), ("host-b", false), ("host-a", true)], await world.PlacementsAsync());
    }

    [Fact]
    public async Task C7_DeadOwner_IsRebuiltElsewhereWithFreshMemory()
    {
        await using var world = await GateWorld.StartAsync();
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(5, 12));
        var before = await world.VmAsync();
        await (await world.RebuildAsync("host-b")).ProblemAsync(HttpStatusCode.Conflict, "host-online");
        world.FallSilent();
        await (await world.RebuildAsync("host-a")).ProblemAsync(HttpStatusCode.Conflict, "fence-refused");
        var after = await (await world.RebuildAsync("host-b")).ReadAsync(FleetJson.Default.VmResource);
        Assert.Equal(("host-b", 0L), (after.Host, after.PoisonedPages));
        Assert.True(after.MemoryInstance > before.MemoryInstance && after.PlacementEpoch > before.PlacementEpoch);
        Assert.Equal("stale-memory-instance", await world.ReportAsync(world.A, TestAgent.Poison(1, before, 6)));
    }
}
