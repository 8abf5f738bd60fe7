using System.Runtime.InteropServices;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.Linux;
using Fleet.Linux.Processes;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>What reaches guest memory past the VMM's page tables is found, said, and kept from a permit: real mappings and real pins.</summary>
[Trait("Invariant", "I1")]
public sealed class DeviceDmaTests : GateAgentFixture
{
    private static readonly PageKey Page = new(7, 12);

    [Fact]
    public async Task PlainVmm_IsNotAccused()
    {
        await using var agent = await TestAgent.StartAsync(Root, TestAgent.Vm(Guest, 1, Page));
        using var channel = await agent.AttachAsync(Guest);
        await agent.LookAsync("vm-1");

        Assert.Equal((EnforcementStates.Armed, (string?)null), StatusOf(agent));
        Assert.Null(agent.Table.Find("vm-1")!.Attachment!.Devices!.Found);
    }

    [Fact]
    public async Task Target_WhoseMemoryAnotherProcessMaps_IsAReasonAndNoAcknowledgementUntilItIsGone()
    {
        await using var agent = await TestAgent.StartAsync(Root, Incoming(MigrationStates.Preparing, null, 1, Page));
        using var helper = await MapAsync();
        using var channel = await HandOverAsync(agent, VmmStates.Incoming);
        await TestAgent.UntilAsync(() => StatusOf(agent) == (EnforcementStates.Failed, GateStatus.DeviceDma));
        var obstacle = Assert.Single(agent.Outbox.Take().Obstacles!);
        Assert.Equal(("m-1", "device-dma"), (obstacle.Migration, obstacle.Code));
        Assert.Contains($"process {helper.Pid} (helper) maps", obstacle.Detail, StringComparison.Ordinal);

        await agent.Desired.AdoptAsync(Incoming(MigrationStates.Switching, null, 1, Page), TestContext.Current.CancellationToken);
        channel.SendState(VmmStates.Loaded, null, 0);
        await TestAgent.UntilAsync(() => Guest.HasMarker(7));
        await agent.LookAsync("vm-1");
        Assert.Empty(agent.Outbox.Take().Acks);
        Assert.Equal((EnforcementStates.Failed, GateStatus.DeviceDma), StatusOf(agent));

        helper.Dispose();
        await TestAgent.UntilAsync(() => agent.Outbox.Take().Acks.Count > 0);
        Assert.Equal(EnforcementStates.Armed, StatusOf(agent).State);
    }

    [Fact]
    public async Task Acknowledge_MappingThatCameAfterTheLastLook_IsNotGiven()
    {
        await using var agent = await TestAgent.StartAsync(Root, Incoming(MigrationStates.Preparing, null, 1, Page));
        using var channel = await HandOverAsync(agent, VmmStates.Incoming);
        await TestAgent.UntilAsync(() => StatusOf(agent).Reason == GateStatus.Staged);
        using var helper = await MapAsync();

        await agent.Desired.AdoptAsync(Incoming(MigrationStates.Switching, null, 1, Page), TestContext.Current.CancellationToken);
        channel.SendState(VmmStates.Loaded, null, 0);

        await TestAgent.UntilAsync(() => StatusOf(agent).Reason == GateStatus.DeviceDma);
        var (acks, obstacles) = agent.Outbox.Take();
        Assert.Empty(acks);
        Assert.Equal("device-dma", Assert.Single(obstacles!).Code);
    }

    [Fact]
    public async Task Lift_MappingThatCameAfterTheAcknowledgement_WaitsUntilItIsGone()
    {
        await using var agent = await TestAgent.StartAsync(Root, Incoming(MigrationStates.Switching, null, 1, Page));
        using var channel = await HandOverAsync(agent, VmmStates.Loaded);
        await TestAgent.UntilAsync(() => agent.Outbox.Take().Acks.Count > 0);
        using var helper = await MapAsync();

        await agent.Desired.AdoptAsync(Incoming(MigrationStates.Granted, new Permit("m-1", 5, 1, Instance), 5, Page), TestContext.Current.CancellationToken);
        await TestAgent.UntilAsync(() => StatusOf(agent).Reason == GateStatus.DeviceDma);
        await agent.LookAsync("vm-1");
        Assert.False(File.Exists(Path.Combine(agent.Root, "gate", "vm-1.json")));

        helper.Dispose();
        await LineAsync(channel, AgentLine.Run);
        Assert.Equal((5L, 0L), Record(agent));
    }

    [Fact]
    public async Task Owner_WithPinnedPages_SaysSoAndTheGuestRunsOn()
    {
        await using var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null));
        await using var pin = await PinAsync(3);
        using var channel = await HandOverAsync(agent, VmmStates.Held);
        await LineAsync(channel, AgentLine.Run);
        await agent.LookAsync("vm-1");
        Assert.Equal((EnforcementStates.Failed, GateStatus.DeviceDma), StatusOf(agent));

        // Every access but the device's is stopped all the same.
        await agent.Desired.AdoptAsync(Vm(2, 1, null, Page), TestContext.Current.CancellationToken);
        await TestAgent.UntilAsync(() => Guest.HasMarker(7));
        await agent.LookAsync("vm-1");
        Assert.Equal(Errno.EFAULT, Guest.Read(7).Error);
        Assert.Equal(GateStatus.DeviceDma, StatusOf(agent).Reason);
        channel.SendState(VmmStates.Running, null, 1);
        await agent.DisposeAsync();
        Assert.DoesNotContain(AgentLine.Hold, await RestAsync(channel));
    }

    [Fact]
    public async Task Owner_WithPinnedPagesAndPoison_FirstStartWaitsUntilTheyArePinnedNoMore()
    {
        await using var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null, Page));
        await using var pin = await PinAsync(3);
        using var channel = await HandOverAsync(agent, VmmStates.Held);
        await TestAgent.UntilAsync(() => Guest.HasMarker(7));
        await agent.LookAsync("vm-1");
        Assert.Equal((EnforcementStates.Failed, GateStatus.DeviceDma), StatusOf(agent));
        Assert.False(File.Exists(Path.Combine(agent.Root, "gate", "vm-1.json")));

        await pin.DisposeAsync();
        await TestAgent.UntilAsync(() =>
        {
            agent.Work.Add("vm-1");
            return StatusOf(agent).State == EnforcementStates.Armed;
        });
        await LineAsync(channel, AgentLine.Run);
    }

    private static (string? State, string? Reason) StatusOf(TestAgent agent) =>
        agent.Table.Find("vm-1")?.Status is { } status ? (status.State, status.Reason) : default;

    private async Task<CHelper> MapAsync()
    {
        var helper = await CHelper.StartAsync(CHelper.MapsMemoryOf, $"{Environment.ProcessId}", $"{Guest.File.Descriptor.Number}", $"{Guest.Bytes}");
        Assert.Equal("mapped", helper.Line);
        return helper;
    }

    /// <summary>A page of the guest becomes a registered buffer of an io_uring, until what is returned is disposed.</summary>
    private async Task<PinnedPage> PinAsync(long frame)
    {
        var folder = Directory.CreateDirectory(Path.Combine(Root, "pin"));
        var library = NativeLibrary.Load(await CHelper.CompileAsync(CHelper.PinsItsMemory, folder, "-shared", "-fPIC"));
        var pin = Marshal.GetDelegateForFunctionPointer<Pin>(NativeLibrary.GetExport(library, "pin"));
        var ring = pin((nint)Guest.Address(frame), TestVmm.PageBytes);
        Requires.Kernel(ring < 0 ? $"io_uring's registered buffers: {(Errno)(-ring)}" : null);
        Assert.Equal(TestVmm.PageBytes, ProcessPins.PinnedBytes(Environment.ProcessId));
        return new PinnedPage(new FileDescriptor(ring));
    }

    private sealed class PinnedPage(FileDescriptor ring) : IAsyncDisposable
    {
        // The kernel lets go of a ring's buffers after its last descriptor is closed.
        public async ValueTask DisposeAsync()
        {
            ring.Dispose();
            await TestAgent.UntilAsync(() => ProcessPins.PinnedBytes(Environment.ProcessId) == 0);
        }
    }

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    private delegate int Pin(nint address, nuint bytes);
}
