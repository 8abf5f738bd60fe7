using Fleet.Contracts;
using Fleet.Contracts.Migrations;
using Fleet.Demo.Running;
using Fleet.Tests.Shared;
using Fleet.TinyVmm.Control;

namespace Fleet.EndToEnd.Tests;

/// <summary>Lines of GATE.md, "What broke the first design", that need VMM processes which come and go.</summary>
[Trait("Invariant", "I1")]
[Trait("Invariant", "IT")]
public sealed class MigrationLineTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    /// <summary>The acknowledgement names a process that is gone. A repeated stream makes its replacement the target, and it alone.</summary>
    [Fact]
    public async Task B5_TargetVmmReplacedAfterItsAckAndStreamedToAgain_ThePermitIsForTheReplacement()
    {
        await using var moving = await AcknowledgedAsync();
        await moving.TargetVmm.KillAsync();
        await moving.Guest.MigrateOutAsync(await moving.PrepareAsync(), Cancelled);

        await moving.StartAgentAsync(MovingVm.Source);
        var permit = await moving.PermitAsync();

        Assert.Equal($"{moving.TargetVmm.Pid}", permit.VmmInstance.Split(':')[1]);
        await moving.CompleteAsync();
        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
    }

    /// <summary>Seal and acknowledgement agree on a process that is gone: the replacement never runs, and the source goes on.</summary>
    [Fact]
    public async Task B5_TargetVmmReplacedAfterItsAckAndNotStreamedTo_IsNeverRunAndTheSourceGoesOn()
    {
        await using var moving = await AcknowledgedAsync();
        await moving.TargetVmm.KillAsync();
        await moving.PrepareAsync();

        await moving.StartAgentAsync(MovingVm.Source);
        await moving.StateAsync(MigrationStates.Aborted);

        await SourceGoesOnAsync(moving);
        await MovingVm.AssertIsNotRunningAsync(moving.TargetGuest);
    }

    /// <summary>The seal says where the stream ended; RAM that reached another process after it is not what was sealed.</summary>
    [Fact]
    public async Task B6_TargetLoadedAgainAfterTheSeal_IsNeverGranted()
    {
        await using var moving = await StreamedAsync();
        await moving.SealWithoutTargetAgentAsync();
        await moving.TargetVmm.KillAsync();
        await moving.StartAgentAsync(MovingVm.Target);
        await moving.Guest.MigrateOutAsync(await moving.PrepareAsync(), Cancelled);

        await moving.ReasonsAsync("ack-vmm-instance");
        await moving.Fleet.Client.AbortAsync(MovingVm.Migration, "test", Cancelled);

        await SourceGoesOnAsync(moving);
        await MovingVm.AssertIsNotRunningAsync(moving.TargetGuest);
    }

    /// <summary>What the stream did not bring is a hole on the target, also of a page that was cleared meanwhile.</summary>
    [Fact]
    public async Task B9_B10_PageClearedBetweenStreamAndSwitchover_StaysPoisonedWhereItIsAHole()
    {
        await using var moving = await StreamedAsync();
        await moving.Fleet.Client.ClearPageAsync(MovingVm.Vm, MovingVm.FirstFrame + 20, "test", Cancelled);
        Assert.Empty((await moving.Fleet.Client.GetPagesAsync(MovingVm.Vm, Cancelled)).Items);

        await moving.PermitAsync();
        await moving.CompleteAsync();

        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
    }

    [Fact]
    public async Task B12_Reset_WaitsForTheProcessWithTheOldRam()
    {
        await using var moving = await MovingVm.StartAsync();
        await moving.PoisonAsync(20);
        var before = await moving.Fleet.Client.ResetAsync(MovingVm.Vm, "test", Cancelled);
        await moving.DiskOf(MovingVm.Source).KnowsAsync(vm => vm.ResetWanted, "the reset");

        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
        var now = await moving.Fleet.Client.GetVmAsync(MovingVm.Vm, null, Cancelled);
        Assert.Equal((before.MemoryInstance, true), (now.MemoryInstance, now.ResetWanted));

        await moving.Vmm.KillAsync();
        await ResetAsync(moving);
        Assert.True((await moving.Fleet.Client.GetVmAsync(MovingVm.Vm, null, Cancelled)).MemoryInstance > before.MemoryInstance);
        await moving.StartVmmAsync(MovingVm.Source);
        await moving.BootAsync();
        await moving.AssertExactlyArmedAsync(moving.Guest);
    }

    /// <summary>The RAM is gone with its process: whoever comes after it has another guest's, and only a reset helps.</summary>
    [Fact]
    public async Task B14_ReturnToAVmmThatIsNotTheOneThatWasSealed_NeverRunsIt()
    {
        await using var moving = await StreamedAsync();
        await moving.SealWithoutTargetAgentAsync();
        await moving.Vmm.KillAsync();
        await moving.StartVmmAsync(MovingVm.Source);
        var disk = moving.DiskOf(MovingVm.Source);
        var barrier = await disk.BarrierAsync();

        await moving.Fleet.Client.AbortAsync(MovingVm.Migration, "test", Cancelled);
        var epoch = (await moving.Fleet.Client.GetVmAsync(MovingVm.Vm, null, Cancelled)).PlacementEpoch;
        await disk.KnowsAsync(vm => vm.PlacementEpoch == epoch, "the return");
        await moving.ArmedAsync(MovingVm.Source);
        await moving.AssertSourceIsHeldAsync();
        Assert.Equal(barrier, await disk.BarrierAsync());

        await moving.Fleet.Client.ResetAsync(MovingVm.Vm, "test", Cancelled);
        await moving.Vmm.KillAsync();
        await ResetAsync(moving);
        await moving.StartVmmAsync(MovingVm.Source);
        await moving.BootAsync();
        await moving.AssertExactlyArmedAsync(moving.Guest);
    }

    /// <summary>What kept one VMM from its part is not said of the migration for good: a VMM that takes its place may do better.</summary>
    [Fact]
    public async Task Obstacle_OfATargetVmmThatDies_EndsWithIt()
    {
        await using var moving = await MovingVm.StartAsync();
        await moving.PoisonAsync(20);
        var endpoint = await moving.PrepareAsync();
        using var helper = await CHelper.StartAsync(
            CHelper.MapsMemoryOf, $"{moving.TargetVmm.Pid}", MemfdOf(moving.TargetVmm.Pid), $"{64 << 20}");
        await moving.Guest.MigrateOutAsync(endpoint, Cancelled);
        await DeniedForADeviceAsync(moving);

        await moving.TargetVmm.KillAsync();

        await LocalFleet.UntilAsync(
            async () => (await moving.Fleet.Client.GetMigrationAsync(MovingVm.Migration, Cancelled)).Reasons.All(reason => reason.Code != "device-dma"),
            "the obstacle to end", moving.Agents[MovingVm.Target], Cancelled);
    }

    /// <summary>A process that maps the target's memory, as a vhost-user back-end does, would read what the guest must not.</summary>
    [Fact]
    public async Task DeviceDma_AnotherProcessMapsTheTargetsMemory_IsDeniedUntilItIsGone()
    {
        await using var moving = await MovingVm.StartAsync();
        await moving.PoisonAsync(20);
        var endpoint = await moving.PrepareAsync();
        var helper = await CHelper.StartAsync(
            CHelper.MapsMemoryOf, $"{moving.TargetVmm.Pid}", MemfdOf(moving.TargetVmm.Pid), $"{64 << 20}");
        using (helper)
        {
            Assert.Equal("mapped", helper.Line);
            await moving.Guest.MigrateOutAsync(endpoint, Cancelled);
            var denied = await DeniedForADeviceAsync(moving);
            Assert.Contains($"process {helper.Pid} ", denied.Reasons.First(reason => reason.Code == "device-dma").Detail, StringComparison.Ordinal);
            await LocalFleet.UntilAsync(
                async () => (await moving.Fleet.Client.GetVmAsync(MovingVm.Vm, null, Cancelled)).Enforcement
                    .Any(host => host is { Host: MovingVm.Target, State: "failed", Reason: "unenforceable:device-dma" }),
                "the status of the target", moving.Agents[MovingVm.Target], Cancelled);
            await MovingVm.AssertIsNotRunningAsync(moving.TargetGuest);
        }

        await LocalFleet.UntilAsync(async () => await TrySwitchAsync(moving) is not null, "the permit", moving.Agents[MovingVm.Target], Cancelled);
        await moving.CompleteAsync();
        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
    }

    // Null while it switches, or is denied early.
    private static async Task<Permit?> TrySwitchAsync(MovingVm moving)
    {
        try
        {
            return await moving.Fleet.Client.SwitchoverAsync(MovingVm.Migration, TimeSpan.Zero, Cancelled);
        }
        catch (HttpRequestException exception) when (exception.Message.Contains("gate-denied", StringComparison.Ordinal))
        {
            return null;
        }
    }

    private static async Task<MigrationResource> DeniedForADeviceAsync(MovingVm moving)
    {
        MigrationResource? denied = null;
        await LocalFleet.UntilAsync(
            async () =>
            {
                Assert.Null(await TrySwitchAsync(moving));
                denied = await moving.Fleet.Client.GetMigrationAsync(MovingVm.Migration, Cancelled);
                return denied.Reasons.Any(reason => reason.Code == "device-dma");
            },
            "the target's agent to find the process", moving.Agents[MovingVm.Target], Cancelled);
        return denied!;
    }

    private static string MemfdOf(int pid) => Path.GetFileName(Directory.EnumerateFileSystemEntries($"/proc/{pid}/fd")
        .First(path => new FileInfo(path).LinkTarget?.StartsWith("/memfd:vm-1", StringComparison.Ordinal) == true));

    private static Task ResetAsync(MovingVm moving) => LocalFleet.UntilAsync(
        async () => !(await moving.Fleet.Client.GetVmAsync(MovingVm.Vm, null, Cancelled)).ResetWanted,
        "the reset", moving.Agents[MovingVm.Source], Cancelled);

    private static async Task<MovingVm> StreamedAsync()
    {
        var moving = await MovingVm.StartAsync();
        try
        {
            await moving.PoisonAsync(20);
            await moving.StreamAsync();
            return moving;
        }
        catch
        {
            await moving.DisposeAsync();
            throw;
        }
    }

    /// <summary>Switching, with the target's acknowledgement and without the source's agent.</summary>
    private static async Task<MovingVm> AcknowledgedAsync()
    {
        var moving = await StreamedAsync();
        await moving.KillAgentAsync(MovingVm.Source);
        await moving.BeginSwitchAsync();
        await moving.ReasonsAsync("seal-missing");
        return moving;
    }

    private static async Task SourceGoesOnAsync(MovingVm moving)
    {
        await moving.ResumeSourceAsync();
        await moving.AssertOwnerAsync(MovingVm.Source);
        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
    }
}
