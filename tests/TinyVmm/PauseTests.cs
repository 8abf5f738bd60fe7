using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm.Tests;

public sealed class PauseTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Pause_IdleGuest_RefusesCommandsUntilResumed()
    {
        await using var vmm = await RunningVmm.StartAsync();

        await vmm.Client.PauseAsync(Cancelled);
        Assert.Equal("paused", (await vmm.Client.StatusAsync(Cancelled)).State);
        var refused = await Assert.ThrowsAsync<ControlException>(() => vmm.Client.ReadAsync(0x10_0000, Cancelled));
        Assert.Equal(ControlException.Paused, refused.Code);

        await vmm.Client.ResumeAsync(Cancelled);
        Assert.Equal("running", (await vmm.Client.StatusAsync(Cancelled)).State);
        Assert.Equal("0x0", (await vmm.Client.ReadAsync(0x10_0000, Cancelled)).Value);
    }

    // The vCPU is taken out of the midst of its work, stands still, and the work goes on where it was.
    [Fact]
    public async Task Pause_BusyGuest_StopsItAndResumeFinishesTheCommand()
    {
        await using var vmm = await RunningVmm.StartAsync();
        const ulong Start = 0x10_0000;
        const int Bytes = 1 << 20;
        var (first, second) = (new byte[Bytes], new byte[Bytes]);

        var writing = vmm.Machine.Vcpu.ExecuteAsync(new GuestCommand(GuestOperation.Fill, Start, Bytes, 7));
        for (var i = 0; i < 10; i++)
        {
            await vmm.Client.PauseAsync(Cancelled);
            Assert.Equal("paused", (await vmm.Client.StatusAsync(Cancelled)).State);
            Assert.Equal(Errno.None, ProcessMemory.Read(Environment.ProcessId, vmm.AddressOf(Start), first));
            Assert.Equal(Errno.None, ProcessMemory.Read(Environment.ProcessId, vmm.AddressOf(Start), second));
            Assert.True(first.AsSpan().SequenceEqual(second), "the guest wrote while paused");
            Assert.True(i > 0 || !writing.IsCompleted, "the pause waited for the end of the command");
            await vmm.Client.ResumeAsync(Cancelled);
        }

        Assert.IsType<GuestOutcome.Completed>(await writing);
        var checksum = await vmm.Client.ChecksumAsync(Start, Bytes, Cancelled);
        Assert.Equal(GuestArithmetic.PatternChecksum(Start, Bytes, 7), RunningVmm.Dword(checksum.Checksum));
    }

    [Fact]
    public async Task Pause_Twice_IsStillOnePause()
    {
        await using var vmm = await RunningVmm.StartAsync();

        await vmm.Client.PauseAsync(Cancelled);
        await vmm.Client.PauseAsync(Cancelled);
        await vmm.Client.ResumeAsync(Cancelled);
        await vmm.Client.ResumeAsync(Cancelled);

        Assert.Equal("running", (await vmm.Client.StatusAsync(Cancelled)).State);
    }
}
