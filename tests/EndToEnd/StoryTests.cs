using Fleet.Contracts;
using Fleet.Contracts.Pages;
using Fleet.Demo.Running;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;

namespace Fleet.EndToEnd.Tests;

public sealed class StoryTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Poison_ManyPages_EachIsAMachineCheckAndAllElseIsIntact()
    {
        await using var one = await OneVm.StartAsync();
        const ulong Start = 16 << 20;
        const long Bytes = 256 * 4096;
        await one.Guest.WriteAsync(Start, Bytes, 42, Cancelled);
        var frames = Enumerable.Range(0, 32).Select(i => (long)(Start >> 12) + (i * 8) + 3).ToArray();
        await one.PoisonAsync(frames);
        await one.ArmedAsync();

        foreach (var frame in frames)
        {
            await one.AssertMachineCheckAsync(frame);
        }

        // Everything but the poisoned frames, by the guest's own checksums.
        foreach (var frame in frames)
        {
            var from = FrameMath.AddressOf(frame - 3);
            var below = await one.Guest.ChecksumAsync(from, 3 * 4096, Cancelled);
            var above = await one.Guest.ChecksumAsync(from + (4 * 4096), 4 * 4096, Cancelled);
            Assert.Equal($"0x{GuestArithmetic.PatternChecksum(from, 3 * 4096, 42):x}", below.Checksum);
            Assert.Equal($"0x{GuestArithmetic.PatternChecksum(from + (4 * 4096), 4 * 4096, 42):x}", above.Checksum);
        }

        Assert.Equal(32, (await one.HitsAsync(32)).Sum(hit => hit.Count));
    }

    /// <summary>The negative control: without the agent the very same accesses return zeros.</summary>
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Discard_WithoutAnAgent_GuestReadsZeros()
    {
        Fleet.Tests.Shared.Requires.Kvm();
        await using var fleet = await LocalFleet.StartAsync(Cancelled);
        var (_, guest) = await fleet.StartVmmAsync("vm-control", "64M", null, Cancelled);
        await using var __ = guest;
        await guest.StoreAsync(FrameMath.AddressOf(5000), 0xdeadbeef, Cancelled);

        await guest.DiscardAsync(FrameMath.AddressOf(5000), 4096, Cancelled);

        var answer = await guest.ReadAsync(FrameMath.AddressOf(5000), Cancelled);
        Assert.Equal((CommandAnswer.Data, "0x0"), (answer.Outcome, answer.Value));
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Discard_OfAnArmedPageByTheVmm_StaysPoisoned()
    {
        await using var one = await OneVm.StartAsync();
        await one.PoisonAsync(5000);
        await one.ArmedAsync();

        await one.Guest.DiscardAsync(FrameMath.AddressOf(5000), 4096, Cancelled);

        await one.AssertMachineCheckAsync(5000);
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task Clear_Page_GuestMayUseItAgain()
    {
        await using var one = await OneVm.StartAsync();
        await one.PoisonAsync(5000, 5001);
        var before = await one.ArmedAsync();

        await one.Fleet.Client.ClearPageAsync(OneVm.Vm, 5000, "DIMM replaced, guest agreed", Cancelled);
        var after = await one.ArmedAsync();

        Assert.True(after.Generation > before.Generation);
        Assert.Equal(0u, await one.ReadAsync(5000));
        await one.AssertMachineCheckAsync(5001);
    }

    [Fact]
    public async Task Delete_Vm_DisarmsNothing()
    {
        await using var one = await OneVm.StartAsync();
        await one.PoisonAsync(5000);
        await one.ArmedAsync();

        using var response = await one.Fleet.Client.Http.DeleteAsync(new Uri(Routes.Vm(OneVm.Vm), UriKind.Relative), Cancelled);
        response.EnsureSuccessStatusCode();
        await LocalFleet.UntilAsync(
            () => Task.FromResult(!File.Exists(Path.Combine(one.Fleet.Root, OneVm.Host, "vmm", "vm-1.sock"))), "the agent to learn of it", one.Agent, Cancelled);

        await one.AssertMachineCheckAsync(5000);
    }

    [Fact]
    [Trait("Invariant", "I8")]
    public async Task Touch_SamePageManyTimes_IsFewRowsWithTheWholeCount()
    {
        await using var one = await OneVm.StartAsync();
        await one.PoisonAsync(5000);
        await one.ArmedAsync();

        for (var i = 0; i < 300; i++)
        {
            await one.AssertMachineCheckAsync(5000);
        }

        var hits = await one.HitsAsync(300);
        Assert.Equal(300, hits.Sum(hit => hit.Count));
        Assert.Single(hits);
    }

    [Fact]
    public async Task PoisonReport_FromTheVmm_IsRecordedWithItsOriginAndArmed()
    {
        await using var one = await OneVm.StartAsync();

        await one.Guest.MemoryErrorAsync(FrameMath.AddressOf(6144), 21, PageClasses.Srao, Cancelled);
        await LocalFleet.UntilAsync(async () => (await one.Fleet.Client.GetPagesAsync(OneVm.Vm, Cancelled)).Items.Count == 1, "the page", one.Agent, Cancelled);
        await one.ArmedAsync();

        var page = Assert.Single((await one.Fleet.Client.GetPagesAsync(OneVm.Vm, Cancelled)).Items);
        Assert.Equal((6144, 21, PageClasses.Srao, PageSources.Vmm, OneVm.Host), (page.Frame, page.Shift, page.Class, page.Source, page.FirstHost));
        await one.AssertMachineCheckAsync(6144 + 511);
        Assert.Equal(0u, await one.ReadAsync(6144 + 512));
    }
}
