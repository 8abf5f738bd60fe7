using Fleet.Contracts;
using Fleet.Contracts.Pages;
using Fleet.Lab.Tests.Emulation;
using Fleet.Lab.Tests.Running;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;

namespace Fleet.Lab.Tests.Scenarios;

/// <summary>(g) Guest memory of 2 MiB pages: one bad frame costs the whole page, and control plane, next host and guest are all told so.</summary>
[Collection("lab")]
[Trait("Invariant", "I1")]
public sealed class HugePageScenario(LabWorld world)
{
    private const int Page = 20;
    private const int Shift = 21;

    // The next huge page after the one that holds the pattern.
    private const ulong Healthy = 18 << 20;
    private const uint Seed = 5;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact(Timeout = 300_000)]
    public async Task OneBadFrame_CostsTheWholeHugePage_AndEverybodyIsTold()
    {
        world.Transcript.Chapter("(g) One bad frame in a huge page");
        await using var vm = await LabVm.StartAsync(world, "marker", "hugetlb");
        await vm.Source.Guest.WriteAsync(Healthy, 64 << 10, Seed, Cancelled);
        var pfn = await HostKernel.FailMemoryAsync(vm.Source, LabVm.AddressOf(Page));
        world.Transcript.Tell($"memory fails under page {Page}: {await HostKernel.MemoryFailureLineAsync(vm.Host1, pfn)}");
        await ToldWholeAsync(vm.Source, Page);

        PageResource? found = null;
        await Waiting.UntilAsync(
            async () => (found = (await vm.Fleet.Client.GetPagesAsync(LabVm.Id, Cancelled)).Items.SingleOrDefault()) is not null, "the page to be known", Cancelled,
            () => vm.Fleet.Agents[vm.Host1].TailAsync(Cancelled));
        Assert.Equal((LabVm.FirstFrame, Shift), (found!.Frame, found.Shift));
        world.Transcript.Tell($"the control plane is told: frame {found.Frame}, shift {found.Shift}, source {found.Source}");

        await vm.PrepareAsync();
        await vm.StreamAsync();
        await vm.PermitAsync();
        await vm.CompleteAsync();
        var armed = (await vm.Fleet.Client.GetPagesAsync(LabVm.Id, Cancelled)).Items.Single().Hosts.Single(host => host.Host == vm.Host2.Name.Text);
        Assert.Equal((PageStates.Armed, Shift), (armed.State, armed.ArmedShift));

        // Not only the frame that failed.
        foreach (var page in new[] { Page, 0, 511 })
        {
            await ToldWholeAsync(vm.Target, page);
        }

        var checksum = (await vm.Target.Guest.ChecksumAsync(Healthy, 64 << 10, Cancelled)).Checksum;
        Assert.Equal($"0x{GuestArithmetic.PatternChecksum(Healthy, 64 << 10, Seed):x}", checksum);
        world.Transcript.Tell("the next huge page is as the guest wrote it");
    }

    /// <summary>The machine check's MISC says how much is lost.</summary>
    private async Task ToldWholeAsync(LabVmm vmm, int page)
    {
        var answer = await vmm.Guest.ReadAsync(LabVm.AddressOf(page), Cancelled);
        Assert.Equal(CommandAnswer.MachineCheck, answer.Outcome);
        Assert.True(HexAddress.TryParse(answer.Address, out var address) && address >> Shift == LabVm.AddressOf(page) >> Shift, answer.Address);
        Assert.True(HexAddress.TryParse(answer.Misc, out var misc) && (misc & 0x3f) == Shift, answer.Misc);
        world.Transcript.Tell($"the guest touches page {page} on {vmm.Process.Host.Name.Text}: machine check at {answer.Address}, MISC {answer.Misc}: 2 MiB are lost");
    }
}
