using System.Runtime.InteropServices;
using Fleet.Linux.Interop;
using Fleet.Linux.Memory;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;

namespace Fleet.Linux.Tests;

/// <summary>How poison is told from other page-table entries.</summary>
public sealed class PageScanTests
{
    private const int PageBytes = 4096;

    // 27 on a kernel without device memory (6.12 as distributed for clouds, tried), 23 with it; 0: a swap file; 31: a PTE marker.
    [Theory]
    [InlineData(27, true, true)]
    [InlineData(23, true, true)]
    [InlineData(30, true, true)]
    [InlineData(27, false, false)]
    [InlineData(0, true, false)]
    [InlineData(22, true, false)]
    [InlineData(31, true, false)]
    public void IsHardwarePoison_ByTypeAndFlagOfTheFrame(int type, bool isFlagged, bool isPoison)
    {
        const ulong Frame = 0x12345;
        using var flags = Flags(Frame + 1, (Frame, isFlagged ? 1UL << 19 : 0));
        var entry = new PageMapEntry((1UL << 62) | (Frame << 5) | (uint)type);

        Assert.Equal(isPoison, entry.IsHardwarePoison(flags));
        Assert.False(new PageMapEntry((1UL << 63) | (Frame << 5) | (uint)type).IsHardwarePoison(flags));
    }

    [Fact]
    public void IsHardwarePoisoned_TailOfAHugetlbPage_IsByItsHead()
    {
        const ulong Head = 1024;
        const ulong Huge = 1UL << 17;
        using var flags = Flags(2048, (Head, Huge | (1UL << 19)), (Head + 5, Huge), (Head + 512, Huge), (Head + 517, Huge));

        Assert.True(flags.IsHardwarePoisoned(Head + 5));
        Assert.False(flags.IsHardwarePoisoned(Head + 517));
        Assert.False(flags.IsHardwarePoisoned(Head + 6));
        Assert.False(flags.IsHardwarePoisoned(1 << 20));
    }

    [Fact]
    public void KernelPageFlags_OfThisKernel_CanBeRead()
    {
        using var flags = KernelPageFlags.Open();
        Assert.False(flags.IsHardwarePoisoned(1));
    }

    [Fact]
    public void FindNotPresent_Markers_AndNothingElse()
    {
        Requires.Userfaultfd();
        const int Pages = 2000;
        using var file = MemoryFile.Create("fleet-test", Pages * PageBytes);
        using var memory = MemoryMapping.MapShared(file.Descriptor, 0, Pages * PageBytes);
        Assert.Equal(Errno.None, ProcessMemory.Write(Environment.ProcessId, memory.Address, new byte[1000 * PageBytes]));
        using var uffd = UserfaultfdHandle.Create();
        uffd.Handshake(UffdFeatures.Poison | UffdFeatures.MissingShmem | UffdFeatures.MinorShmem);
        // More than one answer of the kernel holds; the last page is one of them.
        var marked = Enumerable.Range(0, 600).Select(index => index * 3).Append(Pages - 1).ToList();
        foreach (var page in marked)
        {
            var address = memory.Address + (ulong)(page * PageBytes);
            uffd.Register(address, PageBytes, UffdRegisterMode.Missing | UffdRegisterMode.Minor);
            file.PunchHole((long)page * PageBytes, PageBytes);
            Assert.True(uffd.Poison(address, PageBytes).Succeeded);
        }

        using var map = PageMap.Open(Environment.ProcessId);
        var found = PageScan.FindNotPresent(map, memory.Address, memory.Address + (Pages * PageBytes));

        Assert.Equal(marked, found.SelectMany(range => Enumerable.Range(
            (int)((range.Start - memory.Address) / PageBytes), (int)((range.End - range.Start) / PageBytes))));
        Assert.All(found, range => Assert.False(range.IsHuge));
        Assert.Empty(PageScan.FindNotPresent(map, memory.Address + PageBytes, memory.Address + (3 * PageBytes)));
    }

    [Fact]
    public void PageMapScan_AsTheKernelHasIt_96And24Bytes()
    {
        // The headers of this system may be older than the call; its number carries the size.
        Assert.Equal((96, 24), (Marshal.SizeOf<PageMapScan>(), Marshal.SizeOf<PageRegion>()));
        Assert.Equal(96UL, (PageMapScan.PAGEMAP_SCAN >> 16) & 0x3fff);
    }

    private static KernelPageFlags Flags(ulong frames, params (ulong Frame, ulong Flags)[] set)
    {
        var content = new ulong[frames];
        foreach (var (frame, flags) in set)
        {
            content[frame] = flags;
        }

        var path = Path.GetTempFileName();
        File.WriteAllBytes(path, MemoryMarshal.AsBytes<ulong>(content).ToArray());
        var opened = KernelPageFlags.Open(path);
        File.Delete(path);
        return opened;
    }
}
