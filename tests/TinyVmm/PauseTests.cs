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
        var stopped = 0;
        for (var round = 0; round < 100 && stopped == 0; round++)
        {
            // On a fast machine the command may end before the pause has come.
            var writing = vmm.Machine.Vcpu.ExecuteAsync(new GuestCommand(GuestOperation.Fill, Start, Bytes, (uint)round));
            for (var i = 0; i < 10; i++)
            {
                await vmm.Client.PauseAsync(Cancelled);
                Assert.Equal("paused", (await vmm.Client.StatusAsync(Cancelled)).State);
                Assert.Equal(Errno.None, ProcessMemory.Read(Environment.ProcessId, vmm.AddressOf(Start), first));
                Assert.Equal(Errno.None, ProcessMemory.Read(Environment.ProcessId, vmm.AddressOf(Start), second));
                Assert.True(first.AsSpan().SequenceEqual(second), "the guest wrote while paused");
                stopped += writing.IsCompleted ? 0 : 1;
                await vmm.Client.ResumeAsync(Cancelled);
            }

            Assert.IsType<GuestOutcome.Completed>(await writing);
            var checksum = await vmm.Client.ChecksumAsync(Start, Bytes, Cancelled);
            Assert.Equal(GuestArithmetic.PatternChecksum(Start, Bytes, (uint)round), RunningVmm.Dword(checksum.Checksum));
        }

        Assert.True(stopped > 0, "each pause waited for the end of the command");
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
