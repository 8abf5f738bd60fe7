using Fleet.Contracts.Handoff;
using Fleet.Linux.Userfaultfd;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm.Tests;

/// <summary>I4, I6: with a barrier the guest runs exactly while the agent allows it, whoever else asks, and whatever connection is lost.</summary>
[Trait("Invariant", "I4, I6")]
public sealed class BarrierTests
{
    private const ulong Page = 0x30_0000;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Theory]
    [ClassData(typeof(Vcpus))]
    public async Task Start_WithBarrier_NothingRunsBeforeTheAgentSaysSo(string vcpu)
    {
        await using var vmm = await StartAsync(vcpu);
        Assert.Equal("held", (await vmm.Client.StatusAsync(Cancelled)).State);
        await AssertHeldAsync(vmm);
        var writing = vmm.Machine.Vcpu.ExecuteAsync(new GuestCommand(GuestOperation.Store, Page, 4, 0x77));

        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        await using var agent = await FakeAgent.AcceptAsync(listener);
        Assert.Contains(VmmCapabilities.Barrier, agent.Handoff.Capabilities);
        Assert.Equal((VmmStates.Held, null), (agent.Handoff.State, agent.Handoff.StreamTarget));
        await agent.AttachedAsync();
        await Deadline.UntilAsync(() => vmm.Machine.Status().Attached, "attached");
        await AssertHeldAsync(vmm);
        Assert.False(writing.IsCompleted);
        Assert.Equal(new byte[4096], vmm.PageOf(Page));

        await agent.RunAsync();
        Assert.Equal(VmmStates.Running, (await agent.NextStateAsync()).State);
        Assert.IsType<GuestOutcome.Completed>(await writing);
        Assert.Equal("0x77", (await vmm.Client.ReadAsync(Page, Cancelled)).Value);
    }

    [Theory]
    [ClassData(typeof(Vcpus))]
    public async Task Hold_BusyGuest_IsOutOfTheGuestAndStaysOut(string vcpu)
    {
        await using var vmm = await StartAsync(vcpu);
        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        await using var agent = await FakeAgent.AcceptAsync(listener);
        await agent.RunAsync();
        await agent.UntilStateAsync(VmmStates.Running);
        const int Bytes = 1 << 20;
        var writing = vmm.Machine.Vcpu.ExecuteAsync(new GuestCommand(GuestOperation.Fill, 0x10_0000, Bytes, 7));

        await agent.HoldAsync();
        await agent.UntilStateAsync(VmmStates.Held);
        var (first, second) = (new byte[Bytes], new byte[Bytes]);
        vmm.Machine.Memory.TryRead(0x10_0000, first);
        await AssertHeldAsync(vmm);
        vmm.Machine.Memory.TryRead(0x10_0000, second);
        Assert.True(first.AsSpan().SequenceEqual(second), "the guest wrote while held");

        await agent.RunAsync();
        await agent.UntilStateAsync(VmmStates.Running);
        Assert.IsType<GuestOutcome.Completed>(await writing);
        Assert.Equal(GuestArithmetic.PatternChecksum(0x10_0000, Bytes, 7), RunningVmm.Dword((await vmm.Client.ChecksumAsync(0x10_0000, Bytes, Cancelled)).Checksum));
    }

    // The agent learns that the guest is not out yet, and again once it is.
    [Fact]
    public async Task Hold_VcpuBlockedOnATrappedPage_IsHeldOnceThePageIsResolved()
    {
        await using var vmm = await StartAsync(SoftwareVirtualCpu.KindName);
        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        await using var agent = await FakeAgent.AcceptAsync(listener);
        await agent.RunAsync();
        await agent.UntilStateAsync(VmmStates.Running);
        Assert.Equal(VmmStates.Running, (await agent.NextStateAsync()).State);
        vmm.Trap(Page);
        var reading = vmm.Machine.Vcpu.ExecuteAsync(new GuestCommand(GuestOperation.Load, Page, 4, 0));
        var seen = new UffdEvent[1];
        await Deadline.UntilAsync(() => vmm.Machine.Userfaultfd.ReadEvents(seen) == 1, "the access is trapped");

        await agent.HoldAsync();
        Assert.Equal(VmmStates.Running, (await agent.NextStateAsync()).State);
        vmm.PoisonTrapped(Page);
        Assert.Equal(VmmStates.Held, (await agent.NextStateAsync()).State);
        Assert.IsType<GuestOutcome.MachineCheck>(await reading);
        await AssertHeldAsync(vmm);
    }

    [Fact]
    public async Task Order_NothingChanges_IsAnsweredAllTheSame()
    {
        await using var vmm = await StartAsync(SoftwareVirtualCpu.KindName);
        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        await using var agent = await FakeAgent.AcceptAsync(listener);

        await agent.HoldAsync();
        Assert.Equal(VmmStates.Held, (await agent.NextStateAsync()).State);
        await agent.RunAsync();
        await agent.UntilStateAsync(VmmStates.Running);
        await agent.RunAsync();
        Assert.Equal(VmmStates.Running, (await agent.NextStateAsync()).State);
        Assert.Equal(VmmStates.Running, (await agent.NextStateAsync()).State);
    }

    [Theory]
    [InlineData(true, VmmStates.Running)]
    [InlineData(false, VmmStates.Held)]
    public async Task Connection_LostAndNew_ChangesNothing(bool allowed, string state)
    {
        await using var vmm = await StartAsync(SoftwareVirtualCpu.KindName);
        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        await using (var agent = await FakeAgent.AcceptAsync(listener))
        {
            await agent.RunAsync();
            await agent.UntilStateAsync(VmmStates.Running);
            if (!allowed)
            {
                await agent.HoldAsync();
                await agent.UntilStateAsync(VmmStates.Held);
            }
        }

        await using var next = await FakeAgent.AcceptAsync(listener);
        Assert.Equal(state, next.Handoff.State);
        await next.AttachedAsync();
        await Deadline.UntilAsync(() => vmm.Machine.Status().Attached, "attached again");
        if (allowed)
        {
            Assert.Equal(CommandAnswer.Done, (await vmm.Client.StoreAsync(Page, 1, Cancelled)).Outcome);
        }
        else
        {
            await AssertHeldAsync(vmm);
        }
    }

    [Fact]
    public async Task Pause_WhileAllowed_IsHeldToTheAgentAndMayBeResumedByAnyone()
    {
        await using var vmm = await StartAsync(SoftwareVirtualCpu.KindName);
        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        await using var agent = await FakeAgent.AcceptAsync(listener);
        await agent.RunAsync();
        await agent.UntilStateAsync(VmmStates.Running);

        await vmm.Client.PauseAsync(Cancelled);
        await agent.UntilStateAsync(VmmStates.Held);
        Assert.Equal(ControlException.Paused, (await Assert.ThrowsAsync<ControlException>(() => vmm.Client.ReadAsync(Page, Cancelled))).Code);
        await vmm.Client.ResumeAsync(Cancelled);
        await agent.UntilStateAsync(VmmStates.Running);

        // The agent's hold latches an operator's pause; its permission opens the latch and leaves the pause.
        await vmm.Client.PauseAsync(Cancelled);
        await agent.HoldAsync();
        await agent.UntilStateAsync(VmmStates.Held);
        await Deadline.UntilAsync(() => IsRefused(vmm), "the hold is latched");
        await AssertHeldAsync(vmm);
        await agent.RunAsync();
        await Deadline.UntilAsync(() => !IsRefused(vmm), "the latch is open");
        Assert.Equal(CommandAnswer.Done, (await vmm.Client.StoreAsync(Page, 1, Cancelled)).Outcome);
    }

    [Theory]
    [InlineData("{\"type\":\"skip\",\"sequence\":0}\n")]
    [InlineData("{\"type\":\"skip\",\"sequence\":0,\"frames\":[{\"start\":5,\"end\":5}]}\n")]
    [InlineData("{\"type\":\"skip\",\"sequence\":0,\"frames\":[{\"start\":-1,\"end\":5}]}\n")]
    [InlineData("{\"type\":\"skip\",\"sequence\":0,\"frames\":[null]}\n")]
    public async Task Skip_Malformed_EndsTheConnectionAndKeepsTheListBefore(string line)
    {
        await using var vmm = await StartAsync(SoftwareVirtualCpu.KindName);
        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        await using (var agent = await FakeAgent.AcceptAsync(listener))
        {
            await agent.SkipAsync(new HandoffFrames(9, 10), new HandoffFrames(3, 4), new HandoffFrames(4, 6));
            await agent.SendRawAsync(line);
            await using var again = await FakeAgent.AcceptAsync(listener);
        }

        Assert.Equal([new HandoffFrames(3, 6), new HandoffFrames(9, 10)], vmm.Machine.Run.Skip.Ranges);
        Assert.Equal([false, true, true, true, false, true, false], new long[] { 2, 3, 4, 5, 6, 9, 10 }.Select(vmm.Machine.Run.Skip.Contains));
    }

    [Fact]
    public async Task Orders_WithoutBarrier_AreNotObeyed()
    {
        await using var vmm = await RunningVmm.StartWithAsync(SoftwareVirtualCpu.KindName);
        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        await using var agent = await FakeAgent.AcceptAsync(listener);
        Assert.Equal((null, null), (agent.Handoff.State, agent.Handoff.StreamTarget));
        Assert.DoesNotContain(VmmCapabilities.Barrier, agent.Handoff.Capabilities);

        await agent.HoldAsync();
        await agent.AttachedAsync();
        await Deadline.UntilAsync(() => vmm.Machine.Status().Attached, "attached");

        Assert.Equal(CommandAnswer.Done, (await vmm.Client.StoreAsync(Page, 1, Cancelled)).Outcome);
    }

    private static Task<RunningVmm> StartAsync(string vcpu) => RunningVmm.StartWithAsync(vcpu, configure: options => options with { Barrier = true });

    private static async Task AssertHeldAsync(RunningVmm vmm)
    {
        Assert.Equal(ControlException.Held, (await Assert.ThrowsAsync<ControlException>(() => vmm.Client.ResumeAsync(Cancelled))).Code);
        Assert.Equal(ControlException.Held, (await Assert.ThrowsAsync<ControlException>(() => vmm.Client.ReadAsync(Page, Cancelled))).Code);
        Assert.Equal(VirtualCpuState.Paused, vmm.Machine.Vcpu.State);
    }

    private static bool IsRefused(RunningVmm vmm)
    {
        try
        {
            vmm.Machine.Run.Resume();
            return false;
        }
        catch (ControlException exception)
        {
            return exception.Code == ControlException.Held;
        }
    }
}
