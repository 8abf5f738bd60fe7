using Fleet.Contracts;
using Fleet.Contracts.Handoff;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm.Tests;

/// <summary>Guest RAM that is no memfd of 4 KiB pages: zapped by the VMM at the agent's word, and lost by the whole page where pages are huge.</summary>
[Trait("Invariant", "I1")]
public sealed class BackingTests
{
    private const ulong Data = 0x20_0000;
    private const long Bytes = 4 << 20;
    private const ulong Struck = 0x30_1000;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    public static TheoryData<string, MemoryBacking> All => new()
    {
        { KvmVirtualCpu.KindName, MemoryBacking.Anonymous },
        { KvmVirtualCpu.KindName, MemoryBacking.Hugetlb },
        { SoftwareVirtualCpu.KindName, MemoryBacking.Anonymous },
        { SoftwareVirtualCpu.KindName, MemoryBacking.Hugetlb },
    };

    [Theory]
    [MemberData(nameof(All))]
    public async Task Zap_ByDontNeedAndByRemap_GuestMeetsThePoisonAndNothingElseIsLost(string vcpu, MemoryBacking backing)
    {
        using var pages = await ReserveAsync(backing, 8);
        await using var vmm = await RunningVmm.StartWithAsync(vcpu, "8M", options => options with { Backing = backing });
        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        await using var agent = await FakeAgent.AcceptAsync(listener);
        var region = Assert.Single(agent.Handoff.Regions);
        Assert.Contains(VmmCapabilities.Zaps, agent.Handoff.Capabilities);
        Assert.Equal(backing == MemoryBacking.Hugetlb ? (0, 2 << 20) : ((int?)null, 4096), (region.Memfd, region.PageBytes));
        Assert.Equal(backing == MemoryBacking.Hugetlb ? 2 : 1, agent.Descriptors.Count);
        await vmm.Client.WriteAsync(Data, Bytes, 7, Cancelled);
        var page = Struck & ~((ulong)region.PageBytes - 1);
        var frames = new HandoffFrames((long)(page / 4096), (long)((page + (ulong)region.PageBytes) / 4096));

        // As an agent does: registered, zapped by the VMM, marked.
        vmm.Machine.Userfaultfd.Register(vmm.AddressOf(page), (ulong)region.PageBytes, ModeOf(backing));
        Assert.Equal((1, null), await ZapAsync(agent, 1, AgentLine.DontNeed, frames));
        Assert.True(vmm.Machine.Userfaultfd.Poison(vmm.AddressOf(page), (ulong)region.PageBytes).Succeeded);
        await AssertLostAsync(vmm, page, (ulong)region.PageBytes);

        // Another page comes marked, and was never registered here before.
        var other = page + (ulong)region.PageBytes;
        Assert.Equal((2, null), await ZapAsync(agent, 2, AgentLine.Remap, frames with { Start = frames.End, End = frames.End + (frames.End - frames.Start) }));
        await AssertLostAsync(vmm, other, (ulong)region.PageBytes);
        await AssertPatternAsync(vmm, Data, page);
        await AssertPatternAsync(vmm, other + (ulong)region.PageBytes, Data + (ulong)Bytes);
    }

    [Theory]
    [InlineData(AgentLine.DontNeed, -1, 1)]
    [InlineData(AgentLine.DontNeed, 5, 5)]
    [InlineData(AgentLine.DontNeed, 2_047, 2_049)]
    [InlineData(AgentLine.DontNeed, long.MaxValue - 1, long.MaxValue)]
    [InlineData("shred", 600, 601)]
    public async Task Zap_OfWhatIsNoMemoryOrNoMethod_IsAnErrorAndChangesNothing(string method, long start, long end)
    {
        await using var vmm = await RunningVmm.StartWithAsync(SoftwareVirtualCpu.KindName, "8M", options => options with { Backing = MemoryBacking.Anonymous });
        using var listener = FakeAgent.Listen(vmm.HandoffPath);
        await using var agent = await FakeAgent.AcceptAsync(listener);
        await vmm.Client.WriteAsync(Data, Bytes, 7, Cancelled);

        Assert.Equal((9, "EINVAL"), await ZapAsync(agent, 9, method, new HandoffFrames(start, end)));

        await AssertPatternAsync(vmm, Data, Data + (ulong)Bytes);
    }

    /// <summary>What a poisoned page takes with it at the source is a hole at the target, whole pages of it; a page marked there before stays so.</summary>
    [Theory]
    [InlineData(MemoryBacking.Anonymous)]
    [InlineData(MemoryBacking.Hugetlb)]
    public async Task MigrateOut_PoisonedPage_LosesItsWholePageAndNothingElse(MemoryBacking backing)
    {
        using var pages = await ReserveAsync(backing, 16);
        await using var source = await RunningVmm.StartWithAsync(SoftwareVirtualCpu.KindName, "8M", options => options with { Backing = backing });
        await using var target = await RunningVmm.StartIncomingAsync(SoftwareVirtualCpu.KindName, "8M", options => options with { Backing = backing });
        await source.Client.WriteAsync(Data, Bytes, 7, Cancelled);
        var size = source.Machine.Memory.Regions[0].PageBytes;
        var page = Struck & ~(size - 1);
        Mark(source, page, backing);

        // Nothing of a page that the source was told of late may arrive either: the agent arms no less than the page.
        var late = page + size;
        source.Machine.Run.Skip = FrameRanges.TryCreate([new HandoffFrames((long)(late / 4096), (long)(late / 4096) + 1)], out var skip) ? skip : FrameRanges.Empty;
        var before = Data + (ulong)Bytes;
        Mark(target, before, backing);

        await source.Client.MigrateOutAsync(target.Machine.IncomingAddress!, Cancelled);

        Assert.True(FrameRanges.TryCreate([RangeOf(page, size), RangeOf(late, size), RangeOf(before, size)], out var expected));
        Assert.Equal(expected.Ranges, target.Machine.Run.Present.Undelivered!);
        Assert.True(target.IsHole(page) && target.IsHole(late));
        Assert.Null(target.PageOf(before));
        Mark(target, page, backing);
        Mark(target, late, backing);
        target.Machine.Run.Run();
        await AssertLostAsync(target, page, size);
        await AssertPatternAsync(target, Data, page);
        await AssertPatternAsync(target, late + size, before);
    }

    [Theory]
    [InlineData("0x0:3M", true)]
    [InlineData("0x0:2M,0x301000:2M", true)]
    [InlineData("0x0:4M,0x100000000:2M", false)]
    public void HugePages_LayoutMustBeMadeOfThem(string memory, bool refused)
    {
        Assert.True(MemoryLayout.TryParse(memory, out var layout, out _));
        Assert.Equal(refused, MemoryLayout.CheckHuge(layout) is not null);
    }

    private static async Task<HugePages?> ReserveAsync(MemoryBacking backing, int pages) => backing == MemoryBacking.Hugetlb ? await HugePages.ReserveAsync(pages) : null;

    private static UffdRegisterMode ModeOf(MemoryBacking backing) =>
        backing == MemoryBacking.Anonymous ? UffdRegisterMode.Missing : UffdRegisterMode.Missing | UffdRegisterMode.Minor;

    private static HandoffFrames RangeOf(ulong page, ulong size) => new((long)(page / 4096), (long)((page + size) / 4096));

    private static void Mark(RunningVmm vmm, ulong page, MemoryBacking backing)
    {
        var region = vmm.Machine.Memory.Find(page)!;
        vmm.Machine.Userfaultfd.Register(vmm.AddressOf(page), region.PageBytes, ModeOf(backing));
        region.ZapDontNeed(page, region.PageBytes);
        Assert.True(vmm.Machine.Userfaultfd.Poison(vmm.AddressOf(page), region.PageBytes).Succeeded);
    }

    private static async Task<(long, string?)> ZapAsync(FakeAgent agent, long sequence, string method, HandoffFrames frames)
    {
        await agent.SendAsync(new AgentLine(AgentLine.Zap, sequence, null, null, [frames], method));
        var zapped = await agent.NextZappedAsync();
        return (zapped.Sequence, zapped.Error);
    }

    private static async Task AssertLostAsync(RunningVmm vmm, ulong page, ulong size)
    {
        foreach (var address in (ulong[])[page, (page + (size / 2)) & ~4095UL, page + size - 4096])
        {
            var check = await vmm.Client.ReadAsync(address + 4, Cancelled);
            Assert.Equal((CommandAnswer.MachineCheck, HexAddress.Format(address)), (check.Outcome, check.Address));

            // The guest is told how much is lost: the lowest valid bit of the address is the page's size.
            Assert.Equal(size == 4096 ? "0x8c" : "0x95", check.Misc);
        }
    }

    private static async Task AssertPatternAsync(RunningVmm vmm, ulong start, ulong end)
    {
        if (end > start)
        {
            Assert.Equal(
                GuestArithmetic.PatternChecksum(start, end - start, 7),
                RunningVmm.Dword((await vmm.Client.ChecksumAsync(start, (long)(end - start), Cancelled)).Checksum));
        }
    }
}
