using System.Net;
using Fleet.Api.Agents.Push;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Pages;
using Fleet.Data.Storage;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests;

/// <summary>
/// An override may be wrong: the host was cut off, not dead, and its guest runs on. Whenever it is back its agent must learn that
/// another owns the VM, or it never stops the guest (GATE.md, C6 and "Fence").
/// </summary>
public sealed class FencedHostTests
{
    [Fact]
    [Trait("Invariant", "I4")]
    public async Task C6_SourceFencedFalselyAndBackAfterTheEnd_SeesThatAnotherOwns()
    {
        await using var world = await GateWorld.StartAsync();
        var before = await world.VmAsync();
        await MoveFencedAsync(world);

        await world.A.ClaimAsync();
        var seen = await world.A.DesiredAsync(GateWorld.Vm);
        Assert.Equal(world.B.Host, seen.Owner);
        Assert.True(seen.PlacementEpoch > before.PlacementEpoch);
        Assert.Contains(GateWorld.Vm, await SnapshotAsync(world, world.A.Host));
    }

    [Fact]
    public async Task C6_FencedHostThatOwnedItAgain_IsConcernedNoLongerOnceItSealed()
    {
        await using var world = await GateWorld.StartAsync();
        await MoveFencedAsync(world);
        await world.A.ClaimAsync();
        await world.GrantAsync("m2", world.B, world.A);
        await world.LiftedAsync(world.A, "m2");
        await world.CompleteAsync("m2");
        Assert.Contains(GateWorld.Vm, await SnapshotAsync(world, world.A.Host));
        await world.GrantAsync("m3", world.A, world.C);
        await world.LiftedAsync(world.C, "m3");
        await world.CompleteAsync("m3");

        Assert.DoesNotContain(GateWorld.Vm, await SnapshotAsync(world, world.A.Host));
        await (await world.A.Client.GetAsync(new Uri(Routes.DesiredVm(world.A.Host, GateWorld.Vm), UriKind.Relative))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task C7_OwnerRebuiltAwayFromAndBack_SeesThatAnotherOwns()
    {
        await using var world = await GateWorld.StartAsync();
        world.FallSilent();
        await world.B.ClaimAsync();
        Assert.Equal(HttpStatusCode.OK, (await world.RebuildAsync(world.B.Host)).StatusCode);

        await world.A.ClaimAsync();
        Assert.Equal(world.B.Host, (await world.A.DesiredAsync(GateWorld.Vm)).Owner);
        Assert.Contains(GateWorld.Vm, await SnapshotAsync(world, world.A.Host));
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task C7_TargetFencedFalselyAndBack_SeesThatTheSourceOwns()
    {
        await using var world = await GateWorld.StartAsync();
        await world.GrantAsync();
        world.FallSilent();
        Assert.Equal(HttpStatusCode.OK, (await world.AbortAsync(targetFenced: true)).StatusCode);

        await world.B.ClaimAsync();
        Assert.Equal(world.A.Host, (await world.B.DesiredAsync(GateWorld.Vm)).Owner);
        Assert.Contains(GateWorld.Vm, await SnapshotAsync(world, world.B.Host));
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task SealedSource_AfterTheMove_IsConcernedNoLonger()
    {
        await using var world = await GateWorld.StartAsync();
        await world.GrantAsync();
        await world.LiftedAsync(world.B);
        await world.CompleteAsync();
        Assert.DoesNotContain(GateWorld.Vm, await SnapshotAsync(world, world.A.Host));
    }

    /// <summary>Its guest runs until it has stopped it, and must not read what has failed in the meantime.</summary>
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task C7_OwnerRebuiltAwayFromAndBack_IsToldOfNewPoison()
    {
        await using var world = await GateWorld.StartAsync();
        world.FallSilent();
        await world.B.ClaimAsync();
        await world.RebuildAsync(world.B.Host);
        await world.A.ClaimAsync();
        var seen = await world.A.DesiredAsync(GateWorld.Vm);
        Assert.Empty(await world.A.RefetchAsync(seen));

        await world.Api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(2, 12));

        Assert.Equal([GateWorld.Vm], await world.A.RefetchAsync(seen));
    }

    /// <summary>The VM of the same name that comes after it is another.</summary>
    [Fact]
    [Trait("Invariant", "I7")]
    public async Task VmRebuiltAwayAndDeleted_ConcernsTheFencedHostNoLonger()
    {
        await using var world = await GateWorld.StartAsync();
        world.FallSilent();
        await world.B.ClaimAsync();
        await world.RebuildAsync(world.B.Host);
        await world.A.ClaimAsync();
        var seen = await world.A.DesiredAsync(GateWorld.Vm);
        Assert.Empty(await world.A.RefetchAsync(seen));

        Assert.Equal(HttpStatusCode.NoContent, (await world.Api.Admin.DeleteAsync(Routes.Vm(GateWorld.Vm))).StatusCode);
        Assert.Equal([GateWorld.Vm], await world.A.RefetchAsync(seen));
        await world.Api.Admin.CreateVmAsync(GateWorld.Vm, world.C.Host);

        await (await world.A.Client.GetAsync(Routes.DesiredVm(world.A.Host, GateWorld.Vm))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
        Assert.DoesNotContain(GateWorld.Vm, await SnapshotAsync(world, world.A.Host));
        Assert.Equal([("host-a", false), ("host-b", false), ("host-c", true)], await world.PlacementsAsync());
    }

    private static async Task MoveFencedAsync(GateWorld world)
    {
        await world.BeginAsync();
        world.FallSilent();
        await world.B.ClaimAsync();
        await (await world.SwitchAsync(sourceFenced: true)).ReadAsync(FleetJson.Default.MigrationResource);
        await GateWorld.AckAsync(world.B);
        await world.PermitAsync();
        await world.LiftedAsync(world.B);
        Assert.Equal(MigrationStates.Completed, (await (await world.CompleteAsync()).ReadAsync(FleetJson.Default.MigrationResource)).State);
    }

    private static async Task<IEnumerable<string>> SnapshotAsync(GateWorld world, string host)
    {
        await using var snapshot = await world.Api.Services.GetRequiredService<StoreContexts>().OpenSnapshotAsync(CancellationToken.None);
        return (await DesiredReader.VmsOfAsync(snapshot, host, CancellationToken.None)).Select(row => row.Vm.Id);
    }
}
