using Fleet.Lab.Tests.Running;

namespace Fleet.Lab.Tests.Scenarios;

/// <summary>(f) The kernel makes huge pages of guest memory. That must not map old bytes back, and a marker that is lost is set again.</summary>
[Collection("lab")]
[Trait("Invariant", "I1")]
public sealed class CollapseScenario(LabWorld world)
{
    private const int Page = 20;
    private const long HugePage = 2 << 20;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact(Timeout = 300_000)]
    public async Task Collapse_ByTheVmmAndThroughAnotherMapping_NeverOpensAPage()
    {
        world.Transcript.Chapter("(f) Huge-page collapse");
        await using var vm = await LabVm.StartAsync(world);
        await ControlAsync(vm);
        await ArmOnSourceAsync(vm);

        foreach (var (who, command) in await CommandsAsync(vm.Source))
        {
            var answer = await vm.Host1.Shell.RunAsync(command, Cancelled);
            world.Transcript.Tell($"collapse {who}, with page {Page} poisoned: {answer}");
            world.Transcript.Tell($"the guest touches page {Page}: {await LabVm.MachineCheckAsync(vm.Source, Page)}");
            await vm.IntactButForAsync(vm.Source, Page);
        }
    }

    [Fact(Timeout = 300_000)]
    public async Task LostMarker_IsNeverAnOpenPage_AndIsFoundAndSetAgain()
    {
        world.Transcript.Chapter("(f) A lost marker");
        await using var vm = await LabVm.StartAsync(world);
        await ArmOnSourceAsync(vm);

        // Untouched first: a touch would have the agent look at once.
        await vm.Source.Guest.UnmapAsync(LabVm.AddressOf(Page), 4096, Cancelled);
        await Waiting.UntilAsync(
            async () => (await HostKernel.PageTableEntryAsync(vm.Source, LabVm.AddressOf(Page))).IsPoisonMarker, "the marker to be set again", Cancelled,
            () => vm.Fleet.Agents[vm.Host1].TailAsync(Cancelled));
        var said = await vm.Host1.Shell.RunAsync($"grep -c marker-lost {vm.Fleet.Agents[vm.Host1].LogPath}", Cancelled);
        Assert.NotEqual("0", said);
        world.Transcript.Tell("the VMM drops the page from its page table, marker and all: the agent finds it lost, says so, and sets it again");

        await vm.Source.Guest.UnmapAsync(LabVm.AddressOf(Page), 4096, Cancelled);
        world.Transcript.Tell($"dropped once more, and touched at once: {await LabVm.MachineCheckAsync(vm.Source, Page)}");
        await vm.IntactButForAsync(vm.Source, Page);
    }

    /// <summary>An operator's page: healthy memory, which a collapse could bring back.</summary>
    private static async Task ArmOnSourceAsync(LabVm vm)
    {
        await vm.ReportByOperatorAsync(Page);
        await vm.KnownAsync(Page);
        Assert.True((await HostKernel.PageTableEntryAsync(vm.Source, LabVm.AddressOf(Page))).IsPoisonMarker);
    }

    /// <summary>The same commands, on memory without a poisoned page, do make a huge page.</summary>
    private async Task ControlAsync(LabVm vm)
    {
        var control = await LabVm.StartUnguardedAsync(vm.Fleet);
        await using var guest = control.Guest;
        foreach (var (who, command) in await CommandsAsync(control))
        {
            Assert.Equal("collapsed", await vm.Host1.Shell.RunAsync(command, Cancelled));
            world.Transcript.Tell($"collapse {who}, of memory without a poisoned page: collapsed");
        }
    }

    private static async Task<(string Who, string Command)[]> CommandsAsync(LabVmm vmm)
    {
        var region = (await vmm.Guest.StatusAsync(Cancelled)).Regions.Single();
        var (pid, offset) = (vmm.Process.Pid, LabVm.AddressOf(Page) & ~(ulong)(HugePage - 1));
        return
        [
            ("by the VMM", $"collapse own {pid} 0x{await HostKernel.HostAddressAsync(vmm, offset):x} {HugePage}"),
            ("through another mapping", $"collapse other {pid} {region.MemfdNumber} {offset} {HugePage}"),
        ];
    }
}
