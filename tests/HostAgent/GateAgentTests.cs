using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Gate;
using Fleet.Linux;
using Fleet.Linux.Userfaultfd;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Tests;

/// <summary>The gate carried out by the whole agent, on disk and on the VMM's line channel, with memory of this process as the guest's.</summary>
public sealed class GateAgentTests : GateAgentFixture
{
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Run_IsSaidOnlyAfterEveryPageIsArmedAndTheRightIsOnDisk()
    {
        await using var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null, new PageKey(7, 12)));
        using var channel = await HandOverAsync(agent, VmmStates.Held);

        var run = await LineAsync(channel, AgentLine.Run);

        Assert.Equal(Errno.EFAULT, Guest.Read(7).Error);
        Assert.Equal((1L, 0L), Record(agent));
        Assert.Equal(1, run.Sequence);
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task B3_B8_Seal_SweepOfEveryPageComesFirstAndTheBarrierIsClosedOnDisk()
    {
        await using var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null, new PageKey(7, 12), new PageKey(512, 21)));
        using var channel = await HandOverAsync(agent, VmmStates.Held);
        await LineAsync(channel, AgentLine.Run);
        channel.SendState(VmmStates.Running, null, 1);

        await agent.Desired.AdoptAsync(Vm(1, 1, Migration(MigrationStates.Switching), new PageKey(7, 12), new PageKey(512, 21)), TestContext.Current.CancellationToken);
        var hold = await LineAsync(channel, AgentLine.Hold);

        // A state from before the hold was carried out is no answer, whatever it claims.
        channel.SendState(VmmStates.Held, Other, 1);
        channel.SendState(VmmStates.Held, Other, hold.Sequence);
        await TestAgent.UntilAsync(() => agent.Spool.Peek(10).Any(report => report.Kind == AgentReport.Seal));

        Assert.Equal(
            [(AgentReport.Poison, 7L, 12), (AgentReport.Poison, 512, 21), (AgentReport.Seal, 0, 0)],
            agent.Spool.Peek(10).Select(report => (report.Kind, report.Frame, report.Shift ?? 0)));
        Assert.Equal(("m-1", 1L, Other), agent.Spool.Peek(10)[^1] is var seal ? (seal.Migration, seal.PlacementEpoch, seal.TargetVmmInstance) : default);
        Assert.Equal((1L, 1L), Record(agent));
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task A2_A6_Seal_AgentRestartsAfterIt_HoldsAndNeverRunsUntilTheReturn()
    {
        await using (var first = await TestAgent.StartAsync(Root, Vm(1, 1, null)))
        {
            using var channel = await HandOverAsync(first, VmmStates.Held);
            await LineAsync(channel, AgentLine.Run);
            await first.Desired.AdoptAsync(Vm(1, 1, Migration(MigrationStates.Switching)), TestContext.Current.CancellationToken);
            var hold = await LineAsync(channel, AgentLine.Hold);
            channel.SendState(VmmStates.Held, Other, hold.Sequence);
            await TestAgent.UntilAsync(() => first.Spool.Peek(10).Any(report => report.Kind == AgentReport.Seal));
        }

        await using var second = await TestAgent.StartAsync(Root);
        using var again = await HandOverAsync(second, VmmStates.Held, Other);
        Assert.Equal(AgentLine.Hold, (await LineAsync(again, AgentLine.Hold, AgentLine.Run)).Type);

        // Aborted: the epoch has moved, and this process was the right's.
        await second.Desired.AdoptAsync(Vm(1, 9, null), TestContext.Current.CancellationToken);
        Assert.Equal(AgentLine.Run, (await LineAsync(again, AgentLine.Run)).Type);
        Assert.Equal((9L, 1L), Record(second));
        Assert.Single(second.Spool.Peek(10), report => report.Kind == AgentReport.Seal);
    }

    [Fact]
    [Trait("Invariant", "IT")]
    public async Task B7_B9_Target_HolesOfTheStreamAreArmedAfterTheLoadAndAcknowledged_ThenThePermitRuns()
    {
        Guest.Fill(20, 1);
        await using var agent = await TestAgent.StartAsync(Root, Incoming(MigrationStates.Switching, null, 1, new PageKey(7, 12)));
        using var channel = await HandOverAsync(agent, VmmStates.Incoming);
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Status?.Reason == GateStatus.Staged);
        Assert.NotEqual(Errno.EFAULT, Guest.Read(7).Error);

        channel.SendState(VmmStates.Loaded, null, 0, new HandoffFrames(30, 32));
        await TestAgent.UntilAsync(() => Guest.HasMarker(7) && Guest.HasMarker(30) && Guest.HasMarker(31));
        Assert.Equal((Errno.None, (byte)1), Guest.Read(20));

        var permit = new Permit("m-1", 5, 1, Instance);
        await agent.Desired.AdoptAsync(
            Incoming(MigrationStates.Granted, permit, 5, new PageKey(7, 12), new PageKey(30, 12), new PageKey(31, 12)), TestContext.Current.CancellationToken);

        await LineAsync(channel, AgentLine.Run);
        Assert.Equal((5L, 0L), Record(agent));
        await TestAgent.UntilAsync(() => agent.Spool.Count > 0);
        Assert.Equal([(AgentReport.Lifted, 5L)], agent.Spool.Peek(10).Select(report => (report.Kind, report.PlacementEpoch ?? 0)));
        Assert.Equal(Errno.EFAULT, Guest.Read(30).Error);
    }

    /// <summary>As for a guest with the right: that a sealed VMM's page was found does not mean that its report is in the spool.</summary>
    [Fact]
    [Trait("Invariant", "I8")]
    public async Task Sealed_MemoryErrorFoundWhileTheSpoolIsFull_IsReportedOnceThereIsRoom()
    {
        using var logs = new CapturingLogs();
        await using var agent = await TestAgent.StartAsync(
            Root, new Dictionary<string, string?> { ["Agent:SpoolBytes"] = "65536" }, services => services.AddSingleton<ILoggerFactory>(logs), Vm(1, 1, null));
        var (held, hold) = await HeldForSwitchoverAsync(agent);
        using var channel = held;
        channel.SendState(VmmStates.Held, Other, hold);
        await SealedAsync(agent);
        var seal = agent.Spool.Peek(10).Single(report => report.Kind == AgentReport.Seal);
        while (agent.Spool.TryAppend([.. Enumerable.Repeat(seal with { Kind = AgentReport.Hit }, 20)]))
        {
        }

        agent.Services.GetServices<IHostedService>().OfType<DetectionService>().Single().Find = _ => [new NativePage(new PageKey(30, 12), 0x1030)];
        agent.Detection.Add("vm-1");
        await TestAgent.UntilAsync(() => logs.Ids.Contains(1913));
        agent.Spool.Acknowledge(agent.Spool.Peek(1)[0].Sequence + (agent.Spool.Count / 2));

        await TestAgent.UntilAsync(() => agent.Spool.Peek(10_000).Any(report => report.Kind == AgentReport.Fault));
        var poison = Assert.Single(agent.Spool.Peek(10_000), report => report.Kind == AgentReport.Poison);
        Assert.Equal((30L, PoisonOrigins.Sealed), (poison.Frame, poison.Origin));
    }

    /// <summary>A memory error of the target comes while its VMM declares the stream's holes: neither may push the other out of the set.</summary>
    [Fact]
    [Trait("Invariant", "IT")]
    public async Task Target_HolesDeclaredWhileAMemoryErrorIsTaken_AreBothArmed()
    {
        await using var agent = await TestAgent.StartAsync(Root, Incoming(MigrationStates.Switching, null, 1, new PageKey(7, 12)));
        using var channel = await HandOverAsync(agent, VmmStates.Incoming);
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Status?.Reason == GateStatus.Staged);
        var entry = agent.Table.Find("vm-1")!;
        var attachment = entry.Attachment!;

        await entry.Gate.WaitAsync(TestContext.Current.CancellationToken);
        try
        {
            channel.SendState(VmmStates.Loaded, null, 0, new HandoffFrames(30, 32));
            await TestAgent.UntilAsync(() => attachment.Channel?.State?.State == VmmStates.Loaded);
            // Between the read and the write of whoever holds the gate nothing may change.
            Assert.True(attachment.Undelivered.IsEmpty);
            agent.Services.GetRequiredService<GateKeeper>().TakeIncomingPoison(attachment, FrameSet.Of([new PageKey(40, 12)]));
        }
        finally
        {
            entry.Gate.Release();
        }

        await TestAgent.UntilAsync(() => new long[] { 7, 30, 31, 40 }.All(Guest.HasMarker));
        Assert.Equal([new FrameRange(30, 32), new FrameRange(40, 41)], attachment.Undelivered.Ranges);
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task B5_C1_Target_PermitForAnotherProcess_IsRenouncedAndNeverRuns()
    {
        await using var agent = await TestAgent.StartAsync(Root, Incoming(MigrationStates.Switching, null, 1));
        using var channel = await HandOverAsync(agent, VmmStates.Loaded);
        await LineAsync(channel, AgentLine.Skip);

        await agent.Desired.AdoptAsync(Incoming(MigrationStates.Granted, new Permit("m-1", 5, 1, Other), 5), TestContext.Current.CancellationToken);
        await TestAgent.UntilAsync(() => agent.Spool.Peek(10).Any(report => report.Kind == AgentReport.Renounced));

        Assert.Equal((0L, 5L), Record(agent));
        Assert.DoesNotContain(agent.Spool.Peek(10), report => report.Kind == AgentReport.Lifted);
    }

    /// <summary>Outside the model (GATE, last lines): the agent lost its state folder while the VMM lives.</summary>
    [Fact]
    [Trait("Invariant", "I4")]
    public async Task StateFolderLost_VmmThatRuns_IsHeldAndNotStartedAgain()
    {
        await using var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null));
        using var channel = await HandOverAsync(agent, VmmStates.Running);

        var hold = await LineAsync(channel, AgentLine.Hold, AgentLine.Run);
        Assert.Equal(AgentLine.Hold, hold.Type);
        channel.SendState(VmmStates.Held, null, hold.Sequence);
        agent.Work.Add("vm-1");
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")!.Attachment!.Channel!.State!.State == VmmStates.Held);

        Assert.False(File.Exists(Path.Combine(agent.Root, "gate", "vm-1.json")));
    }

    [Fact]
    public async Task Incoming_WithoutAMigration_IsRefused()
    {
        await using var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null));
        using var channel = await HandOverAsync(agent, VmmStates.Incoming);

        Assert.Equal("no-migration", (await channel.ReceiveAsync())?.Code);
    }

    [Theory]
    [InlineData("layout", "layout-mismatch")]
    [InlineData("mappings", "not-mapped")]
    [InlineData("capability", "unsupported-backing")]
    [InlineData("busy-userfaultfd", "busy-userfaultfd")]
    public async Task Incoming_ThatCannotBeEnforced_IsRefusedAndToldAsAReasonOfTheGate(string reason, string code)
    {
        await using var agent = await TestAgent.StartAsync(Root, Incoming(MigrationStates.Preparing, null, 1));
        using var channel = await agent.ConnectAsync("vm-1");
        using var other = UserfaultfdHandle.Create();
        other.Handshake(UffdFeatures.MissingShmem);
        var message = Guest.Message() with { Capabilities = [VmmCapabilities.Barrier], State = VmmStates.Incoming };
        var region = message.Regions[0];
        switch (reason)
        {
            case "layout":
                region = region with { Bytes = 4096 };
                break;
            case "mappings":
                region = region with { HostVirtualAddress = HexAddress.Format(Guest.Memory.Address + 4096) };
                break;
            case "capability":
                region = region with { PageBytes = 1 << 30 };
                break;
            default:
                other.Register(Guest.Address(0), TestVmm.PageBytes, UffdRegisterMode.Missing);
                break;
        }

        channel.SendHandoff(message with { Regions = [region] }, Guest.Userfaultfd.Number, Guest.File.Descriptor.Number);

        Assert.Equal(code, (await channel.ReceiveAsync())?.Code);
        Assert.Equal(("vm-1", "m-1", reason), Assert.Single(agent.Outbox.Take().Obstacles!) is var told ? (told.Vm, told.Migration, told.Code) : default);
    }

    [Fact]
    public async Task Incoming_PageThatAnotherUserfaultfdHolds_IsToldAsAReasonOnceItIsTried()
    {
        await using var agent = await TestAgent.StartAsync(Root, Incoming(MigrationStates.Switching, null, 1, new PageKey(50, 12), new PageKey(60, 12)));
        using var other = UserfaultfdHandle.Create();
        other.Handshake(UffdFeatures.MissingShmem);
        other.Register(Guest.Address(50), TestVmm.PageBytes, UffdRegisterMode.Missing);
        using var channel = await HandOverAsync(agent, VmmStates.Loaded);

        GateObstacle? told = null;
        await TestAgent.UntilAsync(() => (told = agent.Outbox.Take().Obstacles?.SingleOrDefault()) is not null);

        Assert.Equal("busy-userfaultfd", told!.Code);
        Assert.True(Guest.HasMarker(60), "One page that cannot be armed keeps no other from it.");
        Assert.Empty(agent.Outbox.Take().Acks);
        other.Dispose();
        await TestAgent.UntilAsync(() => agent.Outbox.Take().Acks.Count > 0);
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task C6_OwnerIsAnotherHostAtANewerEpoch_HoldsTheGuestAndClosesTheBarrier()
    {
        await using var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null));
        using var channel = await HandOverAsync(agent, VmmStates.Held);
        await LineAsync(channel, AgentLine.Run);

        await agent.Desired.AdoptAsync(Vm(1, 6, null) with { Owner = "host-b" }, TestContext.Current.CancellationToken);

        await LineAsync(channel, AgentLine.Hold);
        await TestAgent.UntilAsync(() => Record(agent) == (1, 1));
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Trap_FirstAccessIsAnEventAndThenPoison()
    {
        Guest.Fill(40, 8);
        await using var agent = await TestAgent.StartAsync(Root, "trap", TestAgent.Vm(Guest, 1, new PageKey(40, 12)));
        using var channel = await agent.AttachAsync(Guest);
        Assert.False(Guest.HasMarker(40));

        var read = await Task.Run(() => Guest.Read(40), TestContext.Current.CancellationToken).WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken);

        Assert.Equal(Errno.EFAULT, read.Error);
        Assert.True(Guest.HasMarker(40));
    }

    [Fact]
    [Trait("Invariant", "I6")]
    public async Task Trap_NoAgent_BlocksTheAccessUntilTheNextOneAnswers()
    {
        Guest.Fill(40, 8);
        await using (var first = await TestAgent.StartAsync(Root, "trap", TestAgent.Vm(Guest, 1, new PageKey(40, 12))))
        {
            (await first.AttachAsync(Guest)).Dispose();
        }

        var read = Task.Run(() => Guest.Read(40), TestContext.Current.CancellationToken);
        await using var second = await TestAgent.StartAsync(Root, "trap");

        Assert.Equal(Errno.EFAULT, (await read.WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken)).Error);
    }
}
