using Fleet.TinyVmm.Memory;

namespace Fleet.TinyVmm.Tests;

public sealed class MemoryLayoutTests
{
    [Fact]
    public void TryParse_SizeAlone_IsOneRegionAtZero()
    {
        Assert.True(MemoryLayout.TryParse("64M", out var ranges, out _));
        Assert.Equal([new MemoryRange(0, 64 << 20)], ranges);
    }

    [Fact]
    public void TryParse_Layout_IsSortedByAddress()
    {
        Assert.True(MemoryLayout.TryParse("0x100000000:1G,0x0:512K,0x100000:3584M".Replace("512K", "1M", StringComparison.Ordinal), out var ranges, out _));
        Assert.Equal([0UL, 0x10_0000UL, 0x1_0000_0000UL], ranges.Select(range => range.GuestPhysicalAddress));
    }

    [Theory]
    [InlineData("")]
    [InlineData("64")]
    [InlineData("-64M")]
    [InlineData("M")]
    [InlineData("0M")]
    [InlineData("64M,")]
    [InlineData("512K")]
    [InlineData("1048576:64M")]
    [InlineData("0x100000:64M")]
    [InlineData("0x0:64M,0x2000000:64M")]
    [InlineData("0x0:64M,0x10000800:64M")]
    [InlineData("0x0:5G")]
    [InlineData("0x0:64M,0xffff0000:64K")]
    [InlineData("0x0:64M,0x3ffffffff000:1G")]
    [InlineData("0x0:64M,0xfffffffffffff000:64M")]
    [InlineData("99999999999999999999G")]
    [InlineData("17179869184G")]
    public void TryParse_InvalidLayout_IsRefusedWithAMessage(string text)
    {
        Assert.False(MemoryLayout.TryParse(text, out _, out var error));
        Assert.NotEmpty(error);
    }
}
