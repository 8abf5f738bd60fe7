using System.Net;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Migrations;
using Fleet.Data.Entities;
using Fleet.Data.Storage;

namespace Fleet.Api.Tests;

/// <summary>A database that was put back from a backup is noticed, in every way that it can be.</summary>
[Trait("Invariant", "I3")]
public sealed class RestoreDetectionTests
{
    [Fact]
    public async Task B17_Claim_NumberFromTheFuture_QuarantinesEveryVmUnderNumbersThatWereNeverIssued()
    {
        await using var world = await GateWorld.StartAsync();
        await world.Api.Admin.CreateVmAsync("vm-2", null);
        await world.BeginAsync();
        var before = await world.VmAsync();

        await world.QuarantineAsync();

        var after = await world.VmAsync();
        await world.Api.AssertQuarantinedAsync();
        Assert.True((await world.Api.Admin.GetVmAsync("vm-2")).Quarantined);
        Assert.True(after.Generation > StoreEpochs.FloorOf(1) && after.PlacementEpoch == after.Generation);
        Assert.Equal((before.Host, before.MemoryInstance), (after.Host, after.MemoryInstance));
        Assert.True(world.A.Incarnation > after.Generation);
        Assert.Equal(1, await world.Api.CountAsync(ChangeKinds.StoreRestored));
        var migration = await world.MigrationAsync("m1");
        Assert.Equal((MigrationStates.Failed, "store-restored"), (migration.State, migration.Reasons.Single().Code));
        Assert.Equal([("host-a", false), ("host-a", true)], await world.PlacementsAsync());
    }

    [Fact]
    public async Task Claim_LastIncarnationAboveTheRow_ProvesIt()
    {
        await using var world = await GateWorld.StartAsync();
        var incarnation = world.A.Incarnation;
        await world.B.ClaimAsync();
        await world.A.ClaimAsync(lastIncarnation: incarnation);
        Assert.Equal((0, false), (world.A.Claim.StoreEpoch, world.A.Claim.StatementRequired));

        // Below the counter, which others have moved on since the restore, and above anything that this host was given.
        await world.B.ClaimAsync();
        await world.A.ClaimAsync(lastIncarnation: world.B.Incarnation);

        Assert.Equal((1, true), (world.A.Claim.StoreEpoch, world.A.Claim.StatementRequired));
    }

    [Fact]
    public async Task Claim_NumberTooFarAhead_IsNotBelieved()
    {
        await using var world = await GateWorld.StartAsync();

        await (await world.A.SendClaimAsync(StoreEpochs.FloorOf(StoreEpochs.MaximumLead + 1))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        await (await world.A.SendClaimAsync(-1)).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        Assert.False((await world.VmAsync()).Quarantined);

        await world.A.ClaimAsync(StoreEpochs.FloorOf(StoreEpochs.MaximumLead));
        Assert.Equal(StoreEpochs.MaximumLead + 1, world.A.Claim.StoreEpoch);
    }

    /// <summary>Its process must not be told that it was superseded: it would stop.</summary>
    [Theory]
    [InlineData("heartbeat")]
    [InlineData("reports")]
    [InlineData("stream")]
    public async Task Conversation_IncarnationFromTheFuture_MustClaimAgainAndIsNotSuperseded(string what)
    {
        using var folder = new TempFolder();
        var api = await ApiHost.StartAsync(folder);
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await api.Admin.CreateVmAsync(GateWorld.Vm, "host-a");
        StoreCopy.BackUp(new StoreOptions { Folder = folder.Path }, folder.File("backup.db"));
        await agent.ClaimAsync();

        api = await api.PutBackByHandAsync(folder, folder.File("backup.db"));
        await using var running = api;
        agent = agent.MoveTo(api);
        Assert.False((await api.Admin.GetVmAsync(GateWorld.Vm)).Quarantined);

        var response = what switch { "heartbeat" => await agent.BeatAsync(), "reports" => await agent.SendAsync(), _ => await agent.StreamAsync() };

        await response.ProblemAsync(HttpStatusCode.Conflict, "statement-required");
        await api.AssertQuarantinedAsync();
        Assert.Equal("1\n", await File.ReadAllTextAsync(folder.File("store.epoch")));
    }

    [Fact]
    public async Task Heartbeat_GenerationAboveTheRow_ProvesItAndOlderOnesDoNot()
    {
        await using var world = await GateWorld.StartAsync();
        var vm = await world.VmAsync();
        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new Contracts.Pages.PageReport(5, 12));
        await world.Api.Admin.CreateVmAsync("vm-2", null);
        Assert.Equal(HttpStatusCode.OK, (await world.A.BeatAsync(Status(vm.Generation, vm.MemoryInstance))).StatusCode);
        Assert.Equal(HttpStatusCode.OK, (await world.A.BeatAsync(Status((await world.VmAsync()).Generation, vm.MemoryInstance))).StatusCode);
        Assert.False((await world.VmAsync()).Quarantined);

        await (await world.A.BeatAsync(Status((await world.VmAsync()).Generation + 1, vm.MemoryInstance))).ProblemAsync(HttpStatusCode.Conflict, "statement-required");

        await world.Api.AssertQuarantinedAsync();
    }

    [Fact]
    public async Task Ack_GenerationAboveTheRow_ProvesItAndGrantsNothing()
    {
        await using var world = await GateWorld.StartAsync();
        await world.BeginAsync();
        await world.SwitchAsync();
        await world.SealAsync(world.A);
        var ack = await GateWorld.MakeAckAsync(world.B);

        var response = await GateWorld.SendAsync(
            world.B, new ReportsRequest(world.B.Incarnation, world.B.SpoolId, [], [ack with { Generation = ack.Generation + 1 }]));

        await response.ProblemAsync(HttpStatusCode.Conflict, "statement-required");
        await world.Api.AssertQuarantinedAsync();
        Assert.Equal(MigrationStates.Failed, (await world.MigrationAsync("m1")).State);
    }

    /// <summary>Numbers of the store epoch before are no news once the new one has begun.</summary>
    [Fact]
    public async Task NumbersOfAnOlderStoreEpoch_ProveNothingNew()
    {
        await using var world = await GateWorld.StartAsync();
        await world.QuarantineAsync();

        await world.B.AssertMustStateAsync();
        await world.B.ClaimAsync(highestSeen: 1_000_000, lastIncarnation: world.B.Incarnation + 500);

        Assert.Equal((1, true), (world.B.Claim.StoreEpoch, world.B.Claim.StatementRequired));
        Assert.Equal(1, await world.Api.CountAsync(ChangeKinds.StoreRestored));
    }

    [Fact]
    public async Task Superseded_StaysSupersededInANewStoreEpoch()
    {
        await using var world = await GateWorld.StartAsync();
        var old = world.A.MoveTo(world.Api);
        await world.QuarantineAsync();

        await (await old.BeatAsync()).ProblemAsync(HttpStatusCode.Conflict, "agent-superseded");
        await (await old.SendAsync()).ProblemAsync(HttpStatusCode.Conflict, "agent-superseded");
        await (await old.StreamAsync()).ProblemAsync(HttpStatusCode.Conflict, "agent-superseded");
    }

    /// <summary>The process died between the file and the commit, or the database was put back: the file is ahead either way.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    public async Task Start_EpochFileAheadOfTheDatabase_BeginsANewStoreEpochAboveBoth(long ahead)
    {
        using var folder = new TempFolder();
        await using (var first = await ApiHost.StartAsync(folder))
        {
            await first.Admin.CreateVmAsync(GateWorld.Vm, null);
        }

        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
        await File.WriteAllTextAsync(folder.File("store.epoch"), $"{ahead}\n");
        await using (var second = await ApiHost.StartAsync(folder))
        {
            // Nobody ever claimed a host: there is nobody to wait for, and nobody to tell. It ends with the first statement or override.
            await second.AssertQuarantinedAsync();
            Assert.Equal(ahead + 1, StoreEpochs.Of(await second.CounterAsync()));
            Assert.Equal($"{ahead + 1}\n", await File.ReadAllTextAsync(folder.File("store.epoch")));
        }

        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
        await using var third = await ApiHost.StartAsync(folder);
        Assert.Equal(ahead + 1, StoreEpochs.Of(await third.CounterAsync()));
        Assert.Equal(1, await third.CountAsync(ChangeKinds.StoreRestored));
    }

    [Fact]
    public async Task EveryStream_EndsWithTheStoreEpoch()
    {
        await using var world = await GateWorld.StartAsync();
        using var stream = await world.B.StreamAsync();
        await using var body = await stream.Content.ReadAsStreamAsync();
        var ended = Task.Run(async () =>
        {
            var buffer = new byte[4096];
            while (await body.ReadAsync(buffer) > 0)
            {
            }
        });
        Assert.False(ended.IsCompleted);

        await world.QuarantineAsync();

        await ended.WaitAsync(TimeSpan.FromSeconds(60));
    }

    private static VmStatus Status(long generation, long memoryInstance) =>
        new(GateWorld.Vm, memoryInstance, generation, null, null, "pending", "test", []);
}
