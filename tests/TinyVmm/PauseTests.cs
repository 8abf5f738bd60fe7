using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;

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

    // The vCPU is taken out of the midst of its work, and the work goes on where it was.
    [Fact]
    public async Task Pause_BusyGuest_StopsItAndResumeFinishesTheCommand()
    {
        await using var vmm = await RunningVmm.StartAsync();
        await using var other = await TinyVmmClient.ConnectAsync(vmm.ControlPath, Cancelled);
        const long Bytes = 1 << 20;

        var writing = other.WriteAsync(0x10_0000, Bytes, 7, Cancelled);
        for (var i = 0; i < 10; i++)
        {
            await vmm.Client.PauseAsync(Cancelled);
            Assert.Equal("paused", (await vmm.Client.StatusAsync(Cancelled)).State);
            await vmm.Client.ResumeAsync(Cancelled);
        }

        Assert.Equal(CommandAnswer.Done, (await writing).Outcome);
        var checksum = await vmm.Client.ChecksumAsync(0x10_0000, Bytes, Cancelled);
        Assert.Equal(GuestArithmetic.PatternChecksum(0x10_0000, Bytes, 7), RunningVmm.Dword(checksum.Checksum));
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
