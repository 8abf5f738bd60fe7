using System.Net;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Hosts;
using Fleet.Data.Entities;

namespace Fleet.Api.Tests;

/// <summary>Two agent processes on one host id, told from one that crashes.</summary>
[Trait("Invariant", "I4")]
public sealed class ContestTests
{
    [Fact]
    public async Task Host_ClaimedInTurnByACopiedFolder_IsHeldByOne_ShownAndNoTarget()
    {
        await using var world = await GateWorld.StartAsync();
        var (right, copy) = await ContestAsync(world);

        var host = await HostAsync(world);
        Assert.Equal("two agent processes claim it in turn", host.Contested);
        Assert.Equal(copy, host.Incarnation);
        Assert.Equal([ChangeKinds.HostContested], (await world.KindsAsync("hosts/host-b")).TakeLast(1));
        Assert.Equal(["target-contested"], GateWorld.Codes(await (await world.PutAsync("m1", "host-b")).ProblemAsync(HttpStatusCode.Conflict, "gate-denied")));

        // The one that holds it goes on, through a restart too; the other is told when to ask again.
        Assert.Equal(HttpStatusCode.OK, (await world.B.BeatAsync()).StatusCode);
        var refused = await world.B.SendClaimAsync(lastIncarnation: right);
        Assert.NotNull(refused.Headers.RetryAfter?.Delta);
        await refused.ProblemAsync(HttpStatusCode.Conflict, "host-contested");
        await world.B.ClaimAsync(lastIncarnation: copy);
    }

    [Fact]
    public async Task Contest_DuringAMigration_KeepsItFromSwitchingOver()
    {
        await using var world = await GateWorld.StartAsync();
        await world.BeginAsync();
        await ContestAsync(world);
        Assert.Contains("target-contested", GateWorld.Codes(await (await world.SwitchAsync()).ProblemAsync(HttpStatusCode.Conflict, "gate-denied")));
        Assert.Contains((await world.MigrationAsync("m1")).Reasons, reason => reason.Code == "target-contested");
    }

    [Fact]
    public async Task Contest_EndsWhenTheHostIsEnrolledAnew()
    {
        await using var world = await GateWorld.StartAsync();
        await ContestAsync(world);
        await (await world.Api.EnrolAsync("host-b")).ClaimAsync();
        Assert.Null((await HostAsync(world)).Contested);
        await EndedAsync(world);
        await world.BeginAsync();
    }

    [Fact]
    public async Task Contest_EndsWhenTheOtherHasBeenSilentForTwoMinutes()
    {
        await using var world = await GateWorld.StartAsync();
        await ContestAsync(world);
        for (var beats = 0; beats < 12; beats++)
        {
            world.Time.Advance(TimeSpan.FromSeconds(9));
            await world.B.BeatAsync();
        }

        Assert.NotNull((await HostAsync(world)).Contested);
        world.Time.Advance(TimeSpan.FromSeconds(12));
        await world.B.BeatAsync();
        await EndedAsync(world);
        Assert.Null((await HostAsync(world)).Contested);
    }

    /// <summary>Killed at any point: before the claim was answered, before its answer was on disk, before its first heartbeat, after it.</summary>
    [Fact]
    public async Task Agent_InACrashLoop_IsNeverContested()
    {
        await using var world = await GateWorld.StartAsync();
        var agent = world.B;
        long? onDisk = null;
        for (var life = 0; life < 40; life++)
        {
            // Claims are never refused: ClaimAsync would say so.
            await agent.ClaimAsync(lastIncarnation: onDisk, boot: $"boot-{life / 10}");
            onDisk = life % 3 == 0 ? onDisk : agent.Incarnation;
            if (life % 3 == 2)
            {
                await agent.BeatAsync();
            }
        }

        Assert.Null((await HostAsync(world)).Contested);
        Assert.DoesNotContain(ChangeKinds.HostContested, await world.KindsAsync("hosts/host-b"));
    }

    /// <summary>A state folder put back from a copy, once.</summary>
    [Fact]
    public async Task Agent_WithAnOlderFolderOnce_IsAdmitted()
    {
        await using var world = await GateWorld.StartAsync();
        var first = world.B.Incarnation;
        await world.B.ClaimAsync(lastIncarnation: first);
        await world.B.BeatAsync();
        await world.B.ClaimAsync(lastIncarnation: first);
        await world.B.BeatAsync();
        Assert.Null((await HostAsync(world)).Contested);
    }

    /// <returns>What the right folder knows, which was superseded last, and what the copy knows, which holds the host.</returns>
    private static async Task<(long Right, long Copy)> ContestAsync(GateWorld world)
    {
        var agent = world.B;
        await agent.BeatAsync();
        var copied = agent.Incarnation;
        // The copy's first start looks like a restart.
        var copy = (await agent.ClaimAsync(lastIncarnation: copied)).Incarnation;
        await agent.BeatAsync();
        // Superseded and started again by its service manager, and so on in turn.
        var right = (await agent.ClaimAsync(lastIncarnation: copied)).Incarnation;
        await agent.BeatAsync();
        await (await agent.SendClaimAsync(lastIncarnation: copy)).ProblemAsync(HttpStatusCode.Conflict, "host-contested");
        return (copy, right);
    }

    private static async Task EndedAsync(GateWorld world)
    {
        while (!(await world.KindsAsync("hosts/host-b")).Contains(ChangeKinds.HostContestEnded))
        {
            world.Time.Advance(TimeSpan.FromSeconds(1));
            await world.B.BeatAsync();
        }
    }

    private static async Task<HostResource> HostAsync(GateWorld world) =>
        await (await world.Api.Admin.GetAsync(new Uri(Routes.Host("host-b"), UriKind.Relative))).ReadAsync(FleetJson.Default.HostResource);
}
