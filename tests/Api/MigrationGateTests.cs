using System.Net;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Pages;
using Fleet.Data.Entities;

namespace Fleet.Api.Tests;

/// <summary>What broke the gate's first design (GATE.md), each under its line, as far as the control plane decides it.</summary>
public sealed class MigrationGateTests
{
    [Fact]
    [Trait("Invariant", "I4")]
    public async Task A1_AbortAfterTheSeal_MovesTheEpochAndNothingGrantsAnyMore()
    {
        await using var world = await SwitchingAsync();
        var before = await world.VmAsync();
        Assert.Null(await world.SealAsync(world.A));
        var ack = await GateWorld.MakeAckAsync(world.B);
        Assert.Equal("aborted", (await (await world.AbortAsync()).ReadAsync(FleetJson.Default.MigrationResource)).State);
        await GateWorld.SendAckAsync(world.B, ack);

        await (await world.SwitchAsync()).ProblemAsync(HttpStatusCode.Conflict, "migration-ended");
        var after = await world.VmAsync();
        Assert.True(after.PlacementEpoch > before.PlacementEpoch);
        Assert.Equal("host-a", after.Host);
        Assert.Equal([("host-a", false), ("host-a", true)], await world.PlacementsAsync());
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task A2_AbortOfOneMigration_UndoesNoSealOfTheNext()
    {
        await using var world = await SwitchingAsync();
        await world.AbortAsync();
        await world.BeginAsync("m2", "host-c");
        await world.SwitchAsync("m2");
        Assert.Null(await world.SealAsync(world.A, "m2"));
        var epoch = (await world.VmAsync()).PlacementEpoch;

        await (await world.AbortAsync("m1")).ReadAsync(FleetJson.Default.MigrationResource);
        Assert.Equal(epoch, (await world.VmAsync()).PlacementEpoch);
        await GateWorld.AckAsync(world.C, "m2");
        Assert.Equal("m2", (await world.PermitAsync("m2")).Migration);
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task A3_MigrationsOfOneVm_OnlyOneIsActive()
    {
        await using var world = await GateWorld.StartAsync();
        var answers = await Task.WhenAll(Enumerable.Range(0, 20).Select(number => world.PutAsync($"m{number}", number % 2 == 0 ? "host-b" : "host-c")));
        Assert.Single(answers, answer => answer.StatusCode == HttpStatusCode.Created);
        foreach (var answer in answers.Where(answer => answer.StatusCode != HttpStatusCode.Created))
        {
            await answer.ProblemAsync(HttpStatusCode.Conflict, "migration-active");
        }
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task A4_AbortAfterTheGrant_AsksTheTargetAndMovesNothing()
    {
        await using var world = await GateWorld.StartAsync();
        var permit = await world.GrantAsync();
        for (var time = 0; time < 2; time++)
        {
            var answer = await world.AbortAsync();
            Assert.Equal(HttpStatusCode.Accepted, answer.StatusCode);
            Assert.True((await answer.ReadAsync(FleetJson.Default.MigrationResource)).ReturnWanted);
        }

        var vm = await world.VmAsync();
        Assert.Equal(("host-b", permit.Epoch), (vm.Host, vm.PlacementEpoch));
        Assert.True((await world.B.DesiredAsync(GateWorld.Vm)).Migration!.ReturnWanted);
        Assert.Null(await world.RenounceAsync(world.B));
        vm = await world.VmAsync();
        Assert.Equal("host-a", vm.Host);
        Assert.True(vm.PlacementEpoch > permit.Epoch);
        Assert.Null(vm.Attach.Socket);
        Assert.Equal("aborted", (await world.MigrationAsync("m1")).State);
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task A5_AfterARenounce_ThePermitIsWorthNothing()
    {
        await using var world = await GateWorld.StartAsync();
        var permit = await world.GrantAsync();
        Assert.Null(await world.RenounceAsync(world.B));

        Assert.Equal("stale-migration", await world.LiftedAsync(world.B, epoch: permit.Epoch));
        await (await world.CompleteAsync()).ProblemAsync(HttpStatusCode.Conflict, "migration-ended");
        await (await world.SwitchAsync()).ProblemAsync(HttpStatusCode.Conflict, "migration-ended");
        Assert.Null((await world.MigrationAsync("m1")).Permit);
    }

    [Fact]
    public async Task A5_RenounceOfAnotherEpochOrHostOrAfterTheLift_ChangesNothing()
    {
        await using var world = await GateWorld.StartAsync();
        var permit = await world.GrantAsync();
        Assert.Equal("stale-migration", await world.RenounceAsync(world.B, epoch: permit.Epoch - 1));
        Assert.Equal("stale-migration", await world.RenounceAsync(world.A));
        Assert.Null(await world.LiftedAsync(world.B));
        Assert.Equal("stale-migration", await world.RenounceAsync(world.B));
        await (await world.AbortAsync()).ProblemAsync(HttpStatusCode.Conflict, "already-lifted");
        Assert.Equal("host-b", (await world.VmAsync()).Host);
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task A7_SwitchoverRepeated_GivesTheSamePermitAndOneEpoch()
    {
        await using var world = await GateWorld.StartAsync();
        var permit = await world.GrantAsync();
        var again = await Task.WhenAll(Enumerable.Range(0, 10).Select(_ => world.PermitAsync()));
        Assert.All(again, other => Assert.Equal(permit, other));
        Assert.Equal(permit.Epoch, (await world.VmAsync()).PlacementEpoch);
        Assert.Single(await world.KindsAsync("migrations/m1"), kind => kind == ChangeKinds.MigrationGranted);
        await world.LiftedAsync(world.B);
        await (await world.CompleteAsync()).ReadAsync(FleetJson.Default.MigrationResource);
        Assert.Equal(permit, await world.PermitAsync());
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task A8_PutOfTheVm_NeverMovesTheOwner()
    {
        await using var world = await SwitchingAsync();
        await (await world.Api.Admin.PutVmAsync(GateWorld.Vm, "host-b")).ProblemAsync(HttpStatusCode.Conflict, "use-migration");
        var larger = new[] { ApiCalls.Memory64MiB[0] with { Bytes = 128 << 20 } };
        await (await world.Api.Admin.PutVmAsync(GateWorld.Vm, "host-a", larger)).ProblemAsync(HttpStatusCode.Conflict, "migration-switching");
        await (await world.Api.Admin.DeleteAsync(Routes.Vm(GateWorld.Vm))).ProblemAsync(HttpStatusCode.Conflict, "migration-switching");
        Assert.Equal(HttpStatusCode.OK, (await world.Api.Admin.PutVmAsync(GateWorld.Vm, "host-a")).StatusCode);
        Assert.Equal("host-a", (await world.VmAsync()).Host);
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task A9_StrikesRacingTheAck_AreKnownToThePermitOrComeAfterTheMove()
    {
        await using var world = await GateWorld.StartAsync();
        for (var round = 0; round < 12; round++)
        {
            var (source, target, id) = round % 2 == 0 ? (world.A, world.B, $"m{round}") : (world.B, world.A, $"m{round}");
            var instance = $"boot:{round}:1";
            await world.BeginAsync(id, target.Host);
            await world.SwitchAsync(id);
            await world.SealAsync(source, id, instance);
            var ack = await GateWorld.MakeAckAsync(target, id, instance);
            var adding = world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(round, 12));
            await Task.WhenAll(adding, GateWorld.SendAckAsync(target, ack));
            var added = await adding;
            if ((await world.MigrationAsync(id)).Permit is { } early)
            {
                Assert.True(early.Epoch < added.Generation, "The page was in the set before the grant, and the permit does not know it.");
            }
            else
            {
                await GateWorld.AckAsync(target, id, instance);
            }

            await world.LiftedAsync(target, id);
            await (await world.CompleteAsync(id)).ReadAsync(FleetJson.Default.MigrationResource);
        }
    }

    [Fact]
    [Trait("Invariant", "IT")]
    public async Task B1_B5_B6_AckOfAVmmThatTheStreamDidNotEndIn_DoesNotGrant()
    {
        await using var world = await SwitchingAsync();
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
        await using var world = await SwitchingAsync();
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
        Assert.Equal([5L, 6L], await FramesAsync(world));
        Assert.Equal(2, (await world.KindsAsync("vms/vm-1")).Count(kind => kind == ChangeKinds.LatePoison));
    }

    [Fact]
    public async Task B4_PoisonOfTheSealedSource_IsItsHostsFaultUntilItOwnsAgain()
    {
        await using var world = await GateWorld.StartAsync();
        await world.GrantAsync();
        Assert.Null(await world.PoisonAsync(world.A, 5, "sealed"));
        Assert.Empty(await FramesAsync(world));
        Assert.Contains(ChangeKinds.HostFault, await world.KindsAsync("hosts/host-a"));
        await world.RenounceAsync(world.B);
        Assert.Null(await world.PoisonAsync(world.A, 5, "sealed"));
        Assert.Equal([5L], await FramesAsync(world));
    }

    [Fact]
    [Trait("Invariant", "IT")]
    public async Task B5_MemoryFaultOfTheTarget_VoidsItsAck()
    {
        await using var world = await SwitchingAsync();
        await GateWorld.AckAsync(world.B);
        Assert.Null(await world.PoisonAsync(world.B, 9, "incoming"));
        await world.SealAsync(world.A);
        Assert.Equal(["ack-missing"], (await world.MigrationAsync("m1")).Reasons.Select(reason => reason.Code));
        Assert.Empty(await FramesAsync(world));

        await GateWorld.AckAsync(world.B, "m1", "boot:1:1", new PageKey(9, 12));
        var permit = await world.PermitAsync();
        Assert.Equal([9L], await FramesAsync(world));
        Assert.True((await world.VmAsync()).Generation > permit.Generation);
        Assert.Contains(ChangeKinds.HostFault, await world.KindsAsync("hosts/host-b"));
    }

    [Fact]
    public async Task B5_FaultAndFreshAckInOneRequest_GrantWithThePage()
    {
        await using var world = await SwitchingAsync();
        await world.SealAsync(world.A);
        var ack = await GateWorld.MakeAckAsync(world.B, "m1", "boot:1:1", new PageKey(9, 12));
        var fault = TestAgent.Poison(1, await world.VmAsync(), 9) with { Origin = "incoming" };
        Assert.Null(await world.ReportAsync(world.B, fault, ack));
        Assert.NotNull((await world.MigrationAsync("m1")).Permit);
        Assert.Equal([9L], await FramesAsync(world));
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
        Assert.Equal([5L], await FramesAsync(world));

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
        Assert.Equal([5L], await FramesAsync(world));
        await (await world.PutAsync("m1", "host-b")).ProblemAsync(HttpStatusCode.Conflict, "reset-wanted");
        Assert.Equal("not-placed-here", await world.ReportAsync(world.B, gone));
        Assert.Equal(before.MemoryInstance, (await world.VmAsync()).MemoryInstance);

        Assert.Null(await world.ReportAsync(world.A, gone));
        var after = await world.VmAsync();
        Assert.True(after.MemoryInstance > before.MemoryInstance && after.PlacementEpoch > before.PlacementEpoch && after.Generation > before.Generation);
        Assert.Equal(("host-a", 0L, false), (after.Host, after.PoisonedPages, after.ResetWanted));
        Assert.Equal("stale-memory-instance", await world.ReportAsync(world.A, TestAgent.Poison(1, before, 5)));
    }

    [Fact]
    public async Task C1_TargetVmmGoneBeforeTheGrant_AbortAndASecondMigrationSucceed()
    {
        await using var world = await SwitchingAsync();
        await world.SealAsync(world.A, instance: "boot:1:1");
        await GateWorld.AckAsync(world.B, instance: "boot:2:1");
        Assert.Equal(HttpStatusCode.OK, (await world.AbortAsync()).StatusCode);
        Assert.Equal("m2", (await world.GrantAsync("m2", instance: "boot:3:1")).Migration);
    }

    [Fact]
    public async Task C2_AgentOfTheTargetRestarted_OldAckIsWorthNothingAndThePermitStaysGood()
    {
        await using var world = await SwitchingAsync();
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
        await using var world = await SwitchingAsync();
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
        await using var world = await SwitchingAsync();
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
        await using var world = await SwitchingAsync();
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
        await using var world = await SwitchingAsync();
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
        await using var world = await SwitchingAsync();
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

    private static async Task<GateWorld> SwitchingAsync()
    {
        var world = await GateWorld.StartAsync();
        await world.BeginAsync();
        Assert.Equal(HttpStatusCode.Accepted, (await world.SwitchAsync()).StatusCode);
        return world;
    }

    private static async Task<IEnumerable<long>> FramesAsync(GateWorld world) =>
        (await world.Api.Admin.GetPagesAsync(GateWorld.Vm)).Items.Select(page => page.Frame);
}
