using System.Net;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Pages;
using Fleet.Data.Entities;

namespace Fleet.Api.Tests;

/// <summary>Lines A of GATE.md, "What broke the first design": two guests; as far as the control plane decides them.</summary>
public sealed class MigrationGateATests
{
    [Fact]
    [Trait("Invariant", "I4")]
    public async Task A1_AbortAfterTheSeal_MovesTheEpochAndNothingGrantsAnyMore()
    {
        await using var world = await GateWorld.SwitchingAsync();
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
        await using var world = await GateWorld.SwitchingAsync();
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
        await using var world = await GateWorld.SwitchingAsync();
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
}
