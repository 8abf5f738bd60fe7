using Fleet.Contracts;
using Fleet.Contracts.Handoff;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Userfaultfd;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Handoff;

namespace Fleet.TinyVmm.Tests;

/// <summary>The VMM's side of the handoff, with an agent made by the test.</summary>
public sealed class HandoffTests
{
    private const ulong Page = 0x30_0000;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Handoff_AgentListens_CarriesMemoryAndDescriptors()
    {
        await using var vmm = await RunningVmm.StartAsync("0x0:16M,0x100000000:1G");
        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        await using var agent = await FakeAgent.AcceptAsync(listener);
        var status = await vmm.Client.StatusAsync(Cancelled);

        Assert.Equal((HandoffProtocol.HandoffType, 1, "vm-1", Environment.ProcessId), (agent.Handoff.Type, agent.Handoff.Version, agent.Handoff.Vm, agent.Handoff.VmmPid));
        Assert.Equal([VmmCapabilities.InjectsMachineCheck, VmmCapabilities.Zaps], agent.Handoff.Capabilities);
        Assert.Equal(
            status.Regions.Select((region, index) => new HandoffRegion(region.GuestPhysicalAddress, region.Bytes, region.HostVirtualAddress, 4096, index, region.MemfdNumber, 0)),
            agent.Handoff.Regions);
        Assert.Equal(3, agent.Descriptors.Count);
        Assert.True(UserfaultfdHandle.IsUserfaultfd(agent.Descriptors[0]));
        Assert.True(FileDescriptorInfo.IsMemfd(agent.Descriptors[1]));
        Assert.True(FileDescriptorInfo.IsMemfd(agent.Descriptors[2]));
        Assert.False(status.Attached);

        await agent.AttachedAsync();
        await Deadline.UntilAsync(() => vmm.Machine.Status().Attached, "attached");
    }

    // I1, end to end over the wire: the agent arms with what was handed over, the guest meets it, the agent hears of it.
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Handoff_AgentPoisonsWithItsDescriptors_GuestGetsAMachineCheckAndAgentTheEvent()
    {
        await using var vmm = await RunningVmm.StartAsync();
        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        await using var agent = await FakeAgent.AcceptAsync(listener);
        var userfaultfd = new UserfaultfdHandle(agent.Descriptors[0]);
        var memory = new MemoryFile(agent.Descriptors[1]);
        Assert.True(HexAddress.TryParse(agent.Handoff.Regions[0].HostVirtualAddress, out var host));

        Assert.True(userfaultfd.HandshakeFeatures()!.Value.HasFlag(UffdFeatures.Poison | UffdFeatures.MissingShmem | UffdFeatures.MinorShmem));
        userfaultfd.Register(host + Page, 4096, UffdRegisterMode.Missing | UffdRegisterMode.Minor);
        memory.PunchHole((long)Page, 4096);
        Assert.True(userfaultfd.Poison(host + Page, 4096).Succeeded);
        await agent.AttachedAsync();

        Assert.Equal(CommandAnswer.MachineCheck, (await vmm.Client.ReadAsync(Page + 4, Cancelled)).Outcome);
        var hit = await agent.NextEventAsync();
        Assert.Equal((VmmEvent.MceInjected, 1L, "0x300004", "read", 0, 1L), (hit.Type, hit.Sequence, hit.GuestPhysicalAddress, hit.Access, hit.Vcpu, hit.Count));
        await agent.AcknowledgeAsync(1);
        await Deadline.UntilAsync(() => vmm.Machine.Events.Pending == 0, "acknowledged");
    }

    // I8: hits while no agent is there are counted; I5: what was sent is sent again unchanged, before anything newer.
    [Fact]
    [Trait("Invariant", "I5, I8")]
    public async Task Events_AgentAwayThenGoneWithoutAcknowledging_AreCoalescedAndRedelivered()
    {
        await using var vmm = await RunningVmm.StartAsync();
        vmm.Poison(Page);
        for (var i = 0; i < 5; i++)
        {
            await vmm.Client.ReadAsync(Page, Cancelled);
        }

        await vmm.Client.StoreAsync(Page + 8, 1, Cancelled);
        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        VmmEvent first, second;
        await using (var agent = await FakeAgent.AcceptAsync(listener))
        {
            Assert.Equal(2, agent.Handoff.LastEvent);
            await agent.AttachedAsync();
            (first, second) = (await agent.NextEventAsync(), await agent.NextEventAsync());
            Assert.Equal([(1, 5L, "read"), (2, 1L, "write")], new[] { first, second }.Select(e => ((int)e.Sequence, e.Count, e.Access!)));
        }

        await vmm.Client.ReadAsync(Page, Cancelled);
        await using (var agent = await FakeAgent.AcceptAsync(listener))
        {
            await agent.AttachedAsync();
            Assert.Equal(first, await agent.NextEventAsync());
            Assert.Equal(second, await agent.NextEventAsync());
            Assert.Equal((3L, 1L), await agent.NextEventAsync() is var third ? (third.Sequence, third.Count) : default);
            await agent.AcknowledgeAsync(2);
            await Deadline.UntilAsync(() => vmm.Machine.Events.Pending == 1, "two acknowledged");
        }

        await using (var agent = await FakeAgent.AcceptAsync(listener))
        {
            // Durable with the agent although its acknowledgement was lost.
            await agent.AttachedAsync(sequence: 3);
            await Deadline.UntilAsync(() => vmm.Machine.Events.Pending == 0, "acknowledged by the attachment");
        }
    }

    [Fact]
    public async Task Handoff_Rejected_IsTriedAgainAndTheGuestRunsOn()
    {
        await using var vmm = await RunningVmm.StartAsync();
        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        await using (var agent = await FakeAgent.AcceptAsync(listener))
        {
            await agent.SendAsync(new AgentLine(AgentLine.Rejected, 0, "unknown-vm", "no such VM"));
        }

        await using var again = await FakeAgent.AcceptAsync(listener);
        Assert.Equal(CommandAnswer.Done, (await vmm.Client.StoreAsync(Page, 1, Cancelled)).Outcome);
        Assert.False(vmm.Machine.Status().Attached);
    }

    [Theory]
    [InlineData("garbage\n")]
    [InlineData("{\"type\":7}\n")]
    public async Task Handoff_AgentBreaksTheProtocol_IsTriedAgain(string line)
    {
        await using var vmm = await RunningVmm.StartAsync();
        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        await using (var agent = await FakeAgent.AcceptAsync(listener))
        {
            await agent.SendRawAsync(line);
            await using var again = await FakeAgent.AcceptAsync(listener);
            await again.AttachedAsync();
            await Deadline.UntilAsync(() => vmm.Machine.Status().Attached, "attached at the second try");
        }
    }

    [Fact]
    public void Backoff_AnyNumberOfFailures_StaysWithinItsBounds()
    {
        var backoff = new Backoff(new Random(1));
        var delays = Enumerable.Range(0, 100).Select(_ => backoff.Next()).ToList();

        Assert.InRange(delays[0], Backoff.First / 2, Backoff.First);
        Assert.All(delays, delay => Assert.InRange(delay, Backoff.First / 2, Backoff.Longest));
        Assert.All(delays.Skip(10), delay => Assert.InRange(delay, Backoff.Longest / 2, Backoff.Longest));
    }
}
