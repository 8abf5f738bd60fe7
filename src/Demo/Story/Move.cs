using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.Demo.Running;

namespace Fleet.Demo.Story;

/// <summary>The VM moves to another host, through the gate; there the same page is healthy memory, and must not be for this guest.</summary>
internal sealed class Move(Scene scene)
{
    private const string Migration = "m-1";
    private Permit _permit = null!;

    private Storyboard Board => scene.Board;

    public async Task RunAsync()
    {
        await MigrateAsync();
        await TouchAsync();
        await KillAgentAsync();
    }

    private async Task MigrateAsync()
    {
        Board.Chapter($"Live migration {Scene.HostA} → {Scene.HostB}, through the gate");
        var (source, sourceVmm) = (scene.Guest, scene.Vmm);
        var agent = await Board.DoAsync($"the agent of {Scene.HostB} enrols and claims its host", () => scene.Fleet.StartAgentAsync(Scene.HostB, scene.CancellationToken, scene.Policy));
        var migrating = new Migrating(scene.Fleet, Scene.Vm, Scene.Memory, scene.Vcpu);
        var (process, guest, endpoint) = await Board.DoAsync($"PUT /v1/migrations/{Migration}; a VMM starts on {Scene.HostB} behind its barrier", () =>
            migrating.PrepareAsync(Migration, Scene.HostB, scene.CancellationToken));
        await Board.DoAsync("the source guest is paused and its RAM streamed, without the poisoned page", () => source.MigrateOutAsync(endpoint, scene.CancellationToken));
        var before = await guest.StatusAsync(scene.CancellationToken);
        Board.Check("The target's guest does not run before the permit", before.State is "loaded" or "incoming", $"state {before.State}");
        _permit = await Board.DoAsync("POST switchover: source seals, target arms and acknowledges, one transaction grants", () => migrating.SwitchoverAsync(Migration, scene.CancellationToken));
        await Board.DoAsync("the target's agent verifies again, lifts its barrier, and the migration completes", () => migrating.CompleteAsync(Migration, scene.CancellationToken));

        var vm = await scene.Fleet.Client.GetVmAsync(Scene.Vm, TimeSpan.FromSeconds(20), scene.CancellationToken);
        Board.Check("Ownership moved with the permit", vm.Host == Scene.HostB && vm.PlacementEpoch == _permit.Epoch,
            $"GET /v1/vms/{Scene.Vm}: host {vm.Host}, epoch {vm.PlacementEpoch}; permit: epoch {_permit.Epoch}, generation {_permit.Generation}");
        Board.Check("The target enforces what the source knew", vm.Enforcement.Any(enforcement => enforcement is { Host: Scene.HostB, State: EnforcementStates.Armed }),
            string.Join(", ", vm.Enforcement.Select(enforcement => $"{enforcement.Host} {enforcement.State} at generation {enforcement.ArmedGeneration}")));
        var left = await source.StatusAsync(scene.CancellationToken);
        Board.Check("The source's guest is stopped for good", left.State == VmmHeld, $"state {left.State}");
        await source.DisposeAsync();
        await Board.DoAsync("the source's VMM is destroyed", sourceVmm.TerminateAsync);
        (scene.Agent, scene.Vmm, scene.Guest, scene.Host) = (agent, process, guest, Scene.HostB);
    }

    private const string VmmHeld = Contracts.Handoff.VmmStates.Held;

    private async Task TouchAsync()
    {
        Board.Chapter($"On {Scene.HostB} the frame is healthy memory: the guest must not notice that");
        await scene.CheckIntactAsync();
        await scene.CheckReadAsync("The touch ends in a machine check, never in data");
        await scene.CheckHitsAsync("The access is recorded with VM, frame, host and the new epoch", 1, _permit.Epoch);
    }

    private async Task KillAgentAsync()
    {
        Board.Chapter("kill -9 of the agent");
        await Board.DoAsync($"the agent, process {scene.Agent.Pid}, is killed", scene.Agent.KillAsync);
        await scene.CheckReadAsync("With no agent the kernel enforces: machine check");
        scene.Agent = await Board.DoAsync("a new agent takes the VMM over", () => scene.Fleet.StartAgentAsync(Scene.HostB, scene.CancellationToken, scene.Policy));
        var vm = await Board.DoAsync("it verifies every page again", () => scene.Fleet.Client.GetVmAsync(Scene.Vm, TimeSpan.FromSeconds(20), scene.CancellationToken));
        Board.Check("The new agent confirms the page", vm.Enforcement.Any(enforcement => enforcement is { Host: Scene.HostB, State: EnforcementStates.Armed }),
            string.Join(", ", vm.Enforcement.Select(enforcement => $"{enforcement.Host} {enforcement.State} at generation {enforcement.ArmedGeneration}")));
        await scene.CheckHitsAsync("The access while no agent ran is recorded too", 2, _permit.Epoch);
    }
}
