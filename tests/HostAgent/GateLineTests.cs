using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Migrations;
using Fleet.HostAgent.Reconcile;
using Fleet.Linux;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.Tests;

/// <summary>Lines of GATE.md, "What broke the first design", that the agent answers with the kernel and its disk. Real ones, both.</summary>
public sealed class GateLineTests : GateAgentFixture
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task A5_PermitSeenAgainAfterTheRenounce_IsNeverUsed()
    {
        await using var agent = await TestAgent.StartAsync(Root, Incoming(MigrationStates.Switching, null, 1));
        using var channel = await HandOverAsync(agent, VmmStates.Loaded);
        await TestAgent.UntilAsync(() => agent.Outbox.Take().Acks.Count > 0);
        var granted = Incoming(MigrationStates.Granted, new Permit("m-1", 5, 1, Instance), 5);
        await agent.Desired.AdoptAsync(granted with { Migration = granted.Migration! with { ReturnWanted = true } }, Cancelled);
        await TestAgent.UntilAsync(() => agent.Spool.Peek(10).Any(report => report.Kind == AgentReport.Renounced));

        await agent.Desired.AdoptAsync(granted, Cancelled);
        await agent.LookAsync("vm-1");

        Assert.Equal((0L, 5L), Record(agent));
        Assert.DoesNotContain(agent.Spool.Peek(10), report => report.Kind == AgentReport.Lifted);
        await agent.DisposeAsync();
        Assert.DoesNotContain(AgentLine.Run, await RestAsync(channel));
    }

    /// <summary>The first attestation may have come in a quarantine, where it does nothing; the reset that is wanted afterwards waits for another.</summary>
    [Fact]
    public async Task ResetWantedAgain_UnderAnotherEpoch_IsAttestedAgain()
    {
        await using var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null) with { ResetWanted = true });
        await TestAgent.UntilAsync(() => Attested().Count == 1);
        await agent.LookAsync("vm-1");
        Assert.Equal([1], Attested());

        await agent.Desired.AdoptAsync(Vm(2, 2, null) with { ResetWanted = true }, Cancelled);

        await TestAgent.UntilAsync(() => Attested().Count == 2);
        Assert.Equal([1, 2], Attested());

        List<long?> Attested() => [.. agent.Spool.Peek(10).Where(report => report.Kind == AgentReport.VmmGone).Select(report => report.PlacementEpoch)];
    }

    /// <summary>The disk as a kill -9 leaves it between the two writes of a seal: the barrier is closed, its report is not in the spool.</summary>
    [Fact]
    [Trait("Invariant", "I2")]
    [Trait("Invariant", "I4")]
    public async Task A6_KilledBetweenTheClosedBarrierAndItsReport_ReportsItAgainAndHolds()
    {
        AgentReport first;
        await using (var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null, new PageKey(7, 12))))
        {
            var (held, hold) = await HeldForSwitchoverAsync(agent, new PageKey(7, 12));
            using var channel = held;
            channel.SendState(VmmStates.Held, Other, hold);
            await SealedAsync(agent);
            first = agent.Spool.Peek(10)[^1];
        }

        var gate = Path.Combine(Root, "gate", "vm-1.json");
        var record = await File.ReadAllTextAsync(gate, Cancelled);
        Assert.Contains("\"Spooled\":true", record, StringComparison.Ordinal);
        await File.WriteAllTextAsync(gate, record.Replace("\"Spooled\":true", "\"Spooled\":false", StringComparison.Ordinal), Cancelled);
        var spool = Path.Combine(Root, "spool", "reports");
        var lines = await File.ReadAllLinesAsync(spool, Cancelled);
        Assert.Contains("\"seal\"", lines[^1], StringComparison.Ordinal);
        await File.WriteAllTextAsync(spool, string.Concat(lines[..^1].Select(line => line + "\n")), Cancelled);

        await using var second = await TestAgent.StartAsync(Root);
        await SealedAsync(second);
        var reports = second.Spool.Peek(10);
        Assert.Equal([AgentReport.Poison, AgentReport.Seal], reports.Select(report => report.Kind));
        Assert.Equal(
            (first.Sequence, first.Migration, first.PlacementEpoch, first.TargetVmmInstance),
            (reports[^1].Sequence, reports[^1].Migration, reports[^1].PlacementEpoch, reports[^1].TargetVmmInstance));
        using var again = await HandOverAsync(second, VmmStates.Held, Other);
        Assert.Equal(AgentLine.Hold, (await LineAsync(again, AgentLine.Hold, AgentLine.Run)).Type);
        Assert.Contains("\"Spooled\":true", await File.ReadAllTextAsync(gate, Cancelled), StringComparison.Ordinal);
    }

    [Fact]
    [Trait("Invariant", "IT")]
    public async Task B2_SweepBeforeTheStreamsLastRead_IsNotMade()
    {
        await using var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null));
        var (held, hold) = await HeldForSwitchoverAsync(agent);
        using var channel = held;
        channel.SendState(VmmStates.Held, null, hold);
        await agent.LookAsync("vm-1");
        Assert.Equal(0, agent.Spool.Count);

        // The stream's last read meets a page that nobody knew of; the VMM has queued another that it has not sent yet.
        Guest.Mark(9, 1);
        channel.SendState(new VmmState(VmmState.StateType, VmmStates.Held, Other, null, hold, LastEvent: 1));
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")!.Attachment!.Channel!.State!.StreamTarget == Other);
        await agent.LookAsync("vm-1");
        Assert.Equal(0, agent.Spool.Count);

        channel.SendEvent(Poison(1, 8));
        await SealedAsync(agent);
        var reports = agent.Spool.Peek(10);
        Assert.Equal(AgentReport.Seal, reports[^1].Kind);
        Assert.Equal([8L, 9L], reports.Where(report => report.Kind == AgentReport.Poison).Select(report => report.Frame).Distinct().Order());
    }

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task B4_PoisonBeforeAndAfterTheSeal_KeepsWhereItAroseHoweverLateItIsSent()
    {
        await using var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null));
        var (held, hold) = await HeldForSwitchoverAsync(agent);
        using var channel = held;
        channel.SendEvent(Poison(1, 8));
        await TestAgent.UntilAsync(() => agent.Spool.Count > 0);
        channel.SendState(VmmStates.Held, Other, hold);
        await SealedAsync(agent);
        channel.SendEvent(Poison(2, 9));
        await TestAgent.UntilAsync(() => agent.Spool.Peek(10).Any(report => report.Frame == 9));

        var poison = agent.Spool.Peek(10).Where(report => report.Kind == AgentReport.Poison).ToLookup(report => report.Frame, report => report.Origin);
        Assert.All(poison[8], origin => Assert.Equal(PoisonOrigins.Held, origin));
        Assert.Equal([PoisonOrigins.Sealed], poison[9]);
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task B10_ClearWhileAVmmIsIncoming_DisarmsNothingThere()
    {
        await using var agent = await TestAgent.StartAsync(Root, Incoming(MigrationStates.Switching, null, 1, new PageKey(7, 12), new PageKey(8, 12)));
        using var channel = await HandOverAsync(agent, VmmStates.Loaded);
        await TestAgent.UntilAsync(() => Guest.HasMarker(7) && Guest.HasMarker(8));

        await agent.Desired.AdoptAsync(Incoming(MigrationStates.Switching, null, 1, new PageKey(8, 12)) with { Generation = 9 }, Cancelled);
        GateAck? ack = null;
        await TestAgent.UntilAsync(() => (ack = agent.Outbox.Take().Acks.SingleOrDefault(ack => ack.Generation == 9)) is not null);

        Assert.Equal(Errno.EFAULT, Guest.Read(7).Error);
        Assert.Equal([new PageKey(7, 12), new PageKey(8, 12)], ack!.Unservable);
    }

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task B11_MarkersWiderThanTheSet_AreSweptWhole()
    {
        Guest.Mark(512, 512);
        await using var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null, new PageKey(513, 12)));
        var (held, hold) = await HeldForSwitchoverAsync(agent, new PageKey(513, 12));
        using var channel = held;
        channel.SendState(VmmStates.Held, Other, hold);
        await SealedAsync(agent);

        Assert.Equal(
            Enumerable.Range(512, 512).Select(frame => (long)frame),
            agent.Spool.Peek(2000).Where(report => report.Kind == AgentReport.Poison).Select(report => report.Frame).Order());
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task B13_ReturnWithAPageThatCannotBeArmed_WaitsUntilItIs()
    {
        await using var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null));
        var (held, hold) = await HeldForSwitchoverAsync(agent);
        using var channel = held;
        channel.SendState(VmmStates.Held, Other, hold);
        await SealedAsync(agent);
        using var other = UserfaultfdHandle.Create();
        other.Handshake(UffdFeatures.MissingShmem);
        other.Register(Guest.Address(60), TestVmm.PageBytes, UffdRegisterMode.Missing);

        await agent.Desired.AdoptAsync(Vm(2, 9, null, new PageKey(60, 12)), Cancelled);
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")!.Status is { Generation: 2, Reason: "busy-userfaultfd" });
        await agent.LookAsync("vm-1");
        Assert.Equal((1L, 1L), Record(agent));

        other.Dispose();
        agent.Work.Add("vm-1");
        await LineAsync(channel, AgentLine.Run);
        Assert.Equal((9L, 1L), Record(agent));
        Assert.Equal(Errno.EFAULT, Guest.Read(60).Error);
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task B15_DelayedViewOfAnOlderSetOrPlacement_DisarmsNothing()
    {
        await using var agent = await TestAgent.StartAsync(Root, Vm(5, 5, null, new PageKey(10, 12)));
        using var channel = await HandOverAsync(agent, VmmStates.Held);
        await TestAgent.UntilAsync(() => Guest.HasMarker(10));

        Assert.Equal(DesiredVerdict.Older, await agent.Desired.AdoptAsync(Vm(4, 5, null), Cancelled));
        Assert.Equal(DesiredVerdict.Older, await agent.Desired.AdoptAsync(Vm(6, 4, null), Cancelled));
        await agent.LookAsync("vm-1");

        Assert.Equal(Errno.EFAULT, Guest.Read(10).Error);
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task C5_ViewOfTheSwitchoverThatComesAfterTheReturn_DoesNotSealAgain()
    {
        await using var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null));
        var (held, hold) = await HeldForSwitchoverAsync(agent);
        using var channel = held;
        channel.SendState(VmmStates.Held, Other, hold);
        await SealedAsync(agent);
        await agent.Desired.AdoptAsync(Vm(1, 9, null), Cancelled);
        var run = await LineAsync(channel, AgentLine.Run);
        channel.SendState(VmmStates.Held, Other, run.Sequence);

        await agent.Desired.AdoptAsync(Vm(1, 1, Migration(MigrationStates.Switching)), Cancelled);
        await agent.LookAsync("vm-1");

        // As a VMM answers the hold that a second switchover begins with.
        channel.SendState(VmmStates.Held, Other, run.Sequence + 1);
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")!.Attachment!.Channel!.State!.Obeyed == run.Sequence + 1);
        await agent.LookAsync("vm-1");

        Assert.Equal((9L, 1L), Record(agent));
        Assert.Single(agent.Spool.Peek(10), report => report.Kind == AgentReport.Seal);
    }

    private static VmmEvent Poison(long sequence, long frame) =>
        new(VmmEvent.Poison, sequence, HexAddress.Format(FrameMath.AddressOf(frame)), 12, "srar", null, null, 1, DateTimeOffset.UnixEpoch);
}
