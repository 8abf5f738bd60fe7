using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Gate;
using Fleet.Linux;
using Fleet.Linux.Processes;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>The gate carried out by the whole agent, on disk and on the VMM's line channel, with memory of this process as the guest's.</summary>
public sealed class GateAgentTests : IDisposable
{
    private const string Other = "boot-b:20:3";
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");
    private readonly TestVmm _vmm;

    public GateAgentTests()
    {
        Requires.Userfaultfd();
        _vmm = new TestVmm();
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Run_IsSaidOnlyAfterEveryPageIsArmedAndTheRightIsOnDisk()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, Vm(1, 1, null, new PageKey(7, 12)));
        using var channel = await HandOverAsync(agent, VmmStates.Held);

        var run = await LineAsync(channel, AgentLine.Run);

        Assert.Equal(Errno.EFAULT, _vmm.Read(7).Error);
        Assert.Equal((1L, 0L), Record(agent));
        Assert.Equal(1, run.Sequence);
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task Seal_SweepComesFirstAndTheBarrierIsClosedOnDisk()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, Vm(1, 1, null, new PageKey(7, 12), new PageKey(512, 21)));
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
    public async Task Seal_AgentRestartsAfterIt_HoldsAndNeverRunsUntilTheReturn()
    {
        await using (var first = await TestAgent.StartAsync(_root.FullName, Vm(1, 1, null)))
        {
            using var channel = await HandOverAsync(first, VmmStates.Held);
            await LineAsync(channel, AgentLine.Run);
            await first.Desired.AdoptAsync(Vm(1, 1, Migration(MigrationStates.Switching)), TestContext.Current.CancellationToken);
            var hold = await LineAsync(channel, AgentLine.Hold);
            channel.SendState(VmmStates.Held, Other, hold.Sequence);
            await TestAgent.UntilAsync(() => first.Spool.Peek(10).Any(report => report.Kind == AgentReport.Seal));
        }

        await using var second = await TestAgent.StartAsync(_root.FullName);
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
    public async Task Target_HolesOfTheStreamAreArmedAfterTheLoadAndAcknowledged_ThenThePermitRuns()
    {
        _vmm.Fill(20, 1);
        await using var agent = await TestAgent.StartAsync(_root.FullName, Incoming(MigrationStates.Switching, null, 1, new PageKey(7, 12)));
        using var channel = await HandOverAsync(agent, VmmStates.Incoming);
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Status?.Reason == GateStatus.Staged);
        Assert.NotEqual(Errno.EFAULT, _vmm.Read(7).Error);

        channel.SendState(VmmStates.Loaded, null, 0, new HandoffFrames(30, 32));
        await TestAgent.UntilAsync(() => _vmm.HasMarker(7) && _vmm.HasMarker(30) && _vmm.HasMarker(31));
        Assert.Equal((Errno.None, (byte)1), _vmm.Read(20));

        var self = ProcessIdentity.Of(Environment.ProcessId)!;
        var permit = new Permit("m-1", 5, 1, VmmInstanceText.Of(self.BootId, self.Pid, self.StartTime));
        await agent.Desired.AdoptAsync(
            Incoming(MigrationStates.Granted, permit, 5, new PageKey(7, 12), new PageKey(30, 12), new PageKey(31, 12)), TestContext.Current.CancellationToken);

        await LineAsync(channel, AgentLine.Run);
        Assert.Equal((5L, 0L), Record(agent));
        await TestAgent.UntilAsync(() => agent.Spool.Count > 0);
        Assert.Equal([(AgentReport.Lifted, 5L)], agent.Spool.Peek(10).Select(report => (report.Kind, report.PlacementEpoch ?? 0)));
        Assert.Equal(Errno.EFAULT, _vmm.Read(30).Error);
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task Target_PermitForAnotherProcess_IsRenouncedAndNeverRuns()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, Incoming(MigrationStates.Switching, null, 1));
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
        await using var agent = await TestAgent.StartAsync(_root.FullName, Vm(1, 1, null));
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
        await using var agent = await TestAgent.StartAsync(_root.FullName, Vm(1, 1, null));
        using var channel = await HandOverAsync(agent, VmmStates.Incoming);

        Assert.Equal("no-migration", (await channel.ReceiveAsync())?.Code);
    }

    [Fact]
    public async Task Incoming_OfAnotherLayout_IsRefusedAndToldAsAReasonOfTheGate()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, Incoming(MigrationStates.Preparing, null, 1));
        using var channel = await agent.ConnectAsync("vm-1");
        var message = _vmm.Message() with { Capabilities = [VmmCapabilities.Barrier], State = VmmStates.Incoming };

        channel.SendHandoff(message with { Regions = [message.Regions[0] with { Bytes = 4096 }] }, _vmm.Userfaultfd.Number, _vmm.File.Descriptor.Number);

        Assert.Equal("layout-mismatch", (await channel.ReceiveAsync())?.Code);
        Assert.Equal(("vm-1", "m-1", "layout"), Assert.Single(agent.Outbox.Take().Obstacles!) is var told ? (told.Vm, told.Migration, told.Code) : default);
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task Fence_OwnerIsAnotherHostAtANewerEpoch_HoldsTheGuestAndClosesTheBarrier()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, Vm(1, 1, null));
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
        _vmm.Fill(40, 8);
        await using var agent = await TestAgent.StartAsync(_root.FullName, "trap", TestAgent.Vm(_vmm, 1, new PageKey(40, 12)));
        using var channel = await agent.AttachAsync(_vmm);
        Assert.False(_vmm.HasMarker(40));

        var read = await Task.Run(() => _vmm.Read(40), TestContext.Current.CancellationToken).WaitAsync(TimeSpan.FromSeconds(15), TestContext.Current.CancellationToken);

        Assert.Equal(Errno.EFAULT, read.Error);
        Assert.True(_vmm.HasMarker(40));
    }

    [Fact]
    [Trait("Invariant", "I6")]
    public async Task Trap_NoAgent_BlocksTheAccessUntilTheNextOneAnswers()
    {
        _vmm.Fill(40, 8);
        await using (var first = await TestAgent.StartAsync(_root.FullName, "trap", TestAgent.Vm(_vmm, 1, new PageKey(40, 12))))
        {
            (await first.AttachAsync(_vmm)).Dispose();
        }

        var read = Task.Run(() => _vmm.Read(40), TestContext.Current.CancellationToken);
        await using var second = await TestAgent.StartAsync(_root.FullName, "trap");

        Assert.Equal(Errno.EFAULT, (await read.WaitAsync(TimeSpan.FromSeconds(15), TestContext.Current.CancellationToken)).Error);
    }

    public void Dispose()
    {
        _vmm.Dispose();
        _root.Delete(recursive: true);
    }

    private async Task<TestChannel> HandOverAsync(TestAgent agent, string state, string? streamTarget = null)
    {
        var channel = await agent.ConnectAsync("vm-1");
        channel.SendHandoff(
            _vmm.Message() with { Capabilities = [VmmCapabilities.Barrier, VmmCapabilities.InjectsMachineCheck], State = state, StreamTarget = streamTarget },
            _vmm.Userfaultfd.Number, _vmm.File.Descriptor.Number);
        return channel;
    }

    private static async Task<AgentLine> LineAsync(TestChannel channel, params string[] types)
    {
        while (await channel.ReceiveAsync() is { } line)
        {
            if (types.Contains(line.Type))
            {
                return line;
            }
        }

        throw new InvalidOperationException($"the agent closed the channel without {string.Join(" or ", types)}");
    }

    private static (long Right, long Closed) Record(TestAgent agent)
    {
        var path = Path.Combine(agent.Root, "gate", "vm-1.json");
        var record = System.Text.Json.JsonDocument.Parse(File.ReadAllText(path)).RootElement;
        return (record.GetProperty(nameof(GateRecord.Right)).GetInt64(), record.GetProperty(nameof(GateRecord.Closed)).GetInt64());
    }

    private DesiredVm Vm(long generation, long epoch, DesiredMigration? migration, params PageKey[] pages) =>
        TestAgent.Vm(_vmm, generation, pages) with { PlacementEpoch = epoch, Migration = migration };

    private DesiredVm Incoming(string state, Permit? permit, long epoch, params PageKey[] pages) =>
        Vm(pages.Length + 1, epoch, new DesiredMigration("m-1", state, "host-b", "host-a", new VmAttach(AttachKinds.Handoff), false, permit), pages)
            with { Owner = permit is null ? "host-b" : "host-a" };

    private static DesiredMigration Migration(string state) =>
        new("m-1", state, "host-a", "host-b", new VmAttach(AttachKinds.Handoff), false, null);
}
