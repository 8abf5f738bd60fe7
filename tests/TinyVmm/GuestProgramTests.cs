using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;

namespace Fleet.TinyVmm.Tests;

/// <summary>The guest's instructions against the same arithmetic done by the host.</summary>
public sealed class GuestProgramTests
{
    [Theory]
    [InlineData(0x10_0000UL, 4L, 0u)]
    [InlineData(0x10_0000UL, 8192L, 7u)]
    [InlineData(0x1_0000UL, 4096L, uint.MaxValue)]
    [InlineData(0x20_0ffcUL, 20L, 12345u)]
    public async Task WriteThenChecksum_LowMemory_EqualsTheHostsArithmetic(ulong gpa, long bytes, uint seed)
    {
        await using var vmm = await RunningVmm.StartAsync();

        Assert.Equal(CommandAnswer.Done, (await vmm.Client.WriteAsync(gpa, bytes, seed, TestContext.Current.CancellationToken)).Outcome);
        var checksum = await vmm.Client.ChecksumAsync(gpa, bytes, TestContext.Current.CancellationToken);
        var last = gpa + (ulong)bytes - 4;
        var read = await vmm.Client.ReadAsync(last, TestContext.Current.CancellationToken);

        Assert.Equal(GuestArithmetic.PatternChecksum(gpa, (ulong)bytes, seed), RunningVmm.Dword(checksum.Checksum));
        Assert.Equal(GuestArithmetic.Pattern(last, seed), RunningVmm.Dword(read.Value));
    }

    // The pieces of the window must join without a seam: the range crosses two of its boundaries.
    [Fact]
    public async Task WriteThenChecksum_AboveFourGigabytes_EqualsTheHostsArithmetic()
    {
        await using var vmm = await RunningVmm.StartAsync($"0x0:2M,0x100001000:1G,0x4000000000:4M");
        var gpa = RunningVmm.HighMemory + HighWindowBytes - 4096;
        const long Bytes = 12288;

        await vmm.Client.WriteAsync(gpa, Bytes, seed: 3, TestContext.Current.CancellationToken);
        await vmm.Client.WriteAsync(0x40_0000_0000, 4096, seed: 4, TestContext.Current.CancellationToken);
        var first = await vmm.Client.ChecksumAsync(gpa, Bytes, TestContext.Current.CancellationToken);
        var second = await vmm.Client.ChecksumAsync(0x40_0000_0000, 4096, TestContext.Current.CancellationToken);

        Assert.Equal(GuestArithmetic.PatternChecksum(gpa, Bytes, 3), RunningVmm.Dword(first.Checksum));
        Assert.Equal(GuestArithmetic.PatternChecksum(0x40_0000_0000, 4096, 4), RunningVmm.Dword(second.Checksum));
    }

    [Fact]
    public async Task StoreThenRead_EndOfRam_ReturnsTheValue()
    {
        await using var vmm = await RunningVmm.StartAsync("0x0:2M,0x100001000:8K");

        await vmm.Client.StoreAsync(0x1f_fffc, 0xdead_beef, TestContext.Current.CancellationToken);
        await vmm.Client.StoreAsync(0x1_0000_2ffc, 0xcafe_babe, TestContext.Current.CancellationToken);

        Assert.Equal("0xdeadbeef", (await vmm.Client.ReadAsync(0x1f_fffc, TestContext.Current.CancellationToken)).Value);
        Assert.Equal("0xcafebabe", (await vmm.Client.ReadAsync(0x1_0000_2ffc, TestContext.Current.CancellationToken)).Value);
    }

    private const ulong HighWindowBytes = 2 << 20;
}
