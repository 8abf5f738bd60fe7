using Fleet.Contracts;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Demo.Running;

namespace Fleet.Demo.Story;

/// <summary>A VM on one host: known data, a memory error, and a guest that is stopped at the page.</summary>
internal sealed class OneHost(Scene scene)
{
    private Storyboard Board => scene.Board;

    private FleetClient Client => scene.Fleet.Client;

    public async Task RunAsync()
    {
        await StartAsync();
        await WriteKnownDataAsync();
        await StrikeAsync();
        await TouchAsync();
    }

    private async Task StartAsync()
    {
        Board.Chapter($"A VM on {Scene.HostA}");
        scene.Agent = await Board.DoAsync($"the agent of {Scene.HostA} enrols and claims its host", () => scene.Fleet.StartAgentAsync(Scene.HostA, scene.CancellationToken, scene.Policy));
        await Board.DoAsync($"VM {Scene.Vm} is created", () => Client.PutVmAsync(
            Scene.Vm, new VmRequest(Scene.HostA, [new MemoryRegion("0x0", Scene.MemoryBytes, 4096)], new VmAttach(AttachKinds.Handoff)), scene.CancellationToken));
        (scene.Vmm, scene.Guest) = await Board.DoAsync($"its VMM starts, a process of its own with a {scene.Vcpu} vCPU", () =>
            scene.Fleet.StartVmmAsync(Scene.Vm, Scene.Memory, Scene.HostA, scene.CancellationToken, new VmmStart(Barrier: true, Vcpu: scene.Vcpu)));
        await Board.DoAsync("the VMM hands its memory over, and the agent lets the guest run", () => LocalFleet.UntilAsync(
            async () => await scene.Guest.StatusAsync(scene.CancellationToken) is { Attached: true, State: "running" }, "the agent to let the guest run", scene.Agent, scene.CancellationToken));
        var vm = await Client.GetVmAsync(Scene.Vm, TimeSpan.FromSeconds(20), scene.CancellationToken);
        Board.Check("The control plane knows that the VM is enforced", vm.Enforcement is [{ State: EnforcementStates.Armed }],
            $"GET /v1/vms/{Scene.Vm}: enforcement {vm.Enforcement[0].State} on {vm.Enforcement[0].Host} at generation {vm.Enforcement[0].ArmedGeneration}");
    }

    private async Task WriteKnownDataAsync()
    {
        Board.Chapter("The guest writes known data");
        await Board.DoAsync($"the guest fills {Scene.DataBytes} bytes with a pattern", () => scene.Guest.WriteAsync(Scene.Data, Scene.DataBytes, Scene.Seed, scene.CancellationToken));
        await scene.CheckSumAsync("The guest reads back what it wrote", Scene.Data, Scene.DataBytes);
    }

    private async Task StrikeAsync()
    {
        Board.Chapter($"A memory error strikes frame {Scene.Frame}");
        await scene.Guest.MemoryErrorAsync(Scene.Struck, FrameMath.FrameShift, PageClasses.Srar, scene.CancellationToken);
        PageList pages = null!;
        await Board.DoAsync("VMM, agent, control plane: the report travels", () => LocalFleet.UntilAsync(
            async () => (pages = await Client.GetPagesAsync(Scene.Vm, scene.CancellationToken)).Items.Count > 0, "the page to be recorded", scene.Fleet.Api, scene.CancellationToken));
        Board.Check("The poisoned page is recorded", pages.Items is [{ Frame: Scene.Frame, Shift: 12, FirstHost: Scene.HostA }],
            $"GET /v1/vms/{Scene.Vm}/pages: frame {pages.Items[0].Frame}, class {pages.Items[0].Class}, source {pages.Items[0].Source}, first host {pages.Items[0].FirstHost}, generation {pages.Generation}");

        var vm = await Board.DoAsync("control plane, agent, kernel: the page is zapped and armed", () => Client.GetVmAsync(Scene.Vm, TimeSpan.FromSeconds(20), scene.CancellationToken));
        var page = (await Client.GetPagesAsync(Scene.Vm, scene.CancellationToken)).Items[0];
        Board.Check("The host confirmed it at this generation",
            vm.Enforcement is [{ State: EnforcementStates.Armed }] && vm.Enforcement[0].ArmedGeneration == pages.Generation && page.Hosts is [{ State: PageStates.Armed }],
            $"page state on {Scene.HostA}: {page.Hosts[0].State}, armed generation {vm.Enforcement[0].ArmedGeneration}");
        var entry = Evidence.PageTableEntry(await scene.Guest.StatusAsync(scene.CancellationToken), Scene.Frame);
        Board.Check(
            scene.Policy == "trap" ? "The kernel holds a trapped hole in the VMM's page table" : "The kernel holds a poison marker in the VMM's page table",
            scene.Policy == "trap" ? entry.IsEmpty : entry.IsPoisonMarker, $"/proc/PID/pagemap entry {entry}");
    }

    private async Task TouchAsync()
    {
        Board.Chapter("The guest reads around it, then touches it");
        await scene.CheckIntactAsync();
        await scene.CheckReadAsync("A read ends in a machine check, never in data");
        var store = await scene.Guest.StoreAsync(Scene.Struck + 0x80, 1, scene.CancellationToken);
        Board.Check("A write ends in a machine check", Evidence.IsMachineCheck(store, Scene.Frame), Evidence.Describe(store));
        var vm = await Client.GetVmAsync(Scene.Vm, null, scene.CancellationToken);
        await scene.CheckHitsAsync("Both accesses are recorded as hits, with frame, host and epoch", 2, vm.PlacementEpoch);
    }
}
