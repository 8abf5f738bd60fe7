using Fleet.Contracts;
using Fleet.Contracts.Hosts;
using Fleet.Contracts.Migrations;
using Fleet.Demo.Running;
using Fleet.Lab.Tests.Emulation;
using Fleet.Lab.Tests.Running;

namespace Fleet.Lab.Tests.Scenarios;

/// <summary>(d) What goes wrong during a migration away from failed memory: agents die, cables are pulled, a host loses its power, the control plane dies.</summary>
[Collection("lab")]
[Trait("Invariant", "I6")]
public sealed class FaultsScenario(LabWorld world)
{
    private const int Page = 20;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact(Timeout = 300_000)]
    public async Task KillTargetAgent_BeforeAndAfterTheAccess_TheKernelEnforcesAndEachAccessIsReportedOnce()
    {
        world.Transcript.Chapter("(d) The target's agent is killed, before and after an access");
        await using var vm = await StreamedAsync();
        await vm.PermitAsync();
        await vm.CompleteAsync();
        await KillAsync(vm, vm.Host2);
        world.Transcript.Tell($"with no agent alive the guest touches page {Page}: {await LabVm.MachineCheckAsync(vm.Target, Page)}");
        await RestartAsync(vm, vm.Host2);
        await vm.HitAsync(vm.Host2, Page);

        world.Transcript.Tell($"the guest touches page {Page}, and the agent dies at once: {await LabVm.MachineCheckAsync(vm.Target, Page)}");
        await KillAsync(vm, vm.Host2);
        await RestartAsync(vm, vm.Host2);
        await Waiting.UntilAsync(async () => await CountAsync(vm) >= 2, "the second access to be reported", Cancelled);
        await vm.KnownAsync(Page);
        Assert.Equal(2, await CountAsync(vm));
        await vm.IntactButForAsync(vm.Target, Page);
    }

    [Fact(Timeout = 300_000)]
    public async Task CutTarget_WhilePagesAreToBeArmed_NothingRunsThereUntilItHasHealedAndArmed()
    {
        world.Transcript.Chapter("(d) The target is cut off before it has armed, and comes back");
        await using var vm = await StreamedAsync();
        await vm.Host2.SetControlPlaneLinkAsync(up: false, Cancelled);
        world.Transcript.Tell("the cable between host-2 and the control plane is pulled");
        await vm.ReportByOperatorAsync(40, 41);

        await vm.SwitchWithoutAsync("ack-missing");
        Assert.Null(await vm.Fleet.Client.SwitchoverAsync(LabVm.Migration, TimeSpan.FromSeconds(5), Cancelled));
        Assert.Equal("loaded", (await vm.Target.Guest.StatusAsync(Cancelled)).State);
        await vm.Host2.SetControlPlaneLinkAsync(up: true, Cancelled);
        world.Transcript.Tell("the guest has not run there; the cable is back");

        await vm.PermitAsync();
        await vm.CompleteAsync();
        await vm.IntactButForAsync(vm.Target, Page, 40, 41);
    }

    [Fact(Timeout = 300_000)]
    [Trait("Invariant", "I4")]
    public async Task PowerOffSource_InSwitching_FencedItsGuestRunsOnTheTargetAndNowhereElse()
    {
        world.Transcript.Chapter("(d) Host 1 loses its power in switching, and is fenced");
        await using var vm = await StreamedAsync("--Fleet:HeartbeatInterval=00:00:02");
        await KillAsync(vm, vm.Host1);
        await vm.SwitchWithoutAsync("seal-missing");
        await vm.Fleet.PowerOffAsync(vm.Host1);
        world.Transcript.Tell("host-1 has no power");
        try
        {
            await StateOfAsync(vm, vm.Host1, state => state != HostStates.Online);
            await vm.PermitAsync(sourceFenced: "host-1 has no power");
            await vm.CompleteAsync();
            await vm.IntactButForAsync(vm.Target, Page);
        }
        finally
        {
            // For the scenarios after this one, too.
            await vm.Host1.BootAsync(Cancelled);
        }

        world.Transcript.Tell("host-1 has power again, and the disk that it had");
        await vm.Fleet.StartAgentAsync(vm.Host1);
        await StateOfAsync(vm, vm.Host1, state => state == HostStates.Online);
        Assert.Equal(vm.Host2.Name.Text, (await vm.Fleet.Client.GetVmAsync(LabVm.Id, null, Cancelled)).Host);
        Assert.Equal("running", (await vm.Target.Guest.StatusAsync(Cancelled)).State);
        world.Transcript.Tell("its agent is back; the VM is host-2's, and runs there");
    }

    [Fact(Timeout = 300_000)]
    [Trait("Invariant", "I2")]
    public async Task KillControlPlane_InSwitching_TheMigrationGoesOnAfterItsRestart()
    {
        world.Transcript.Chapter("(d) The control plane is killed in switching");
        await using var vm = await StreamedAsync();
        await KillAsync(vm, vm.Host1);
        await vm.SwitchWithoutAsync("seal-missing");
        await vm.Fleet.ControlPlane.Api!.KillAsync();
        world.Transcript.Tell("the control plane is killed");
        await vm.Fleet.ControlPlane.StartApiAsync(Cancelled);
        world.Transcript.Tell("and started again on its data");
        await vm.MigrationAsync(migration => migration.State == MigrationStates.Switching, "still switching");

        await RestartAsync(vm, vm.Host1);
        await vm.PermitAsync();
        await vm.CompleteAsync();
        await vm.IntactButForAsync(vm.Target, Page);
        await vm.HitAsync(vm.Host2, Page);
    }

    /// <summary>A page has failed on host 1, and the guest's memory has crossed to host 2.</summary>
    private async Task<LabVm> StreamedAsync(params string[] apiArguments)
    {
        var vm = await LabVm.StartAsync(world, apiArguments: apiArguments);
        try
        {
            await HostKernel.FailMemoryAsync(vm.Source, LabVm.AddressOf(Page));
            await vm.TouchOnSourceAsync(Page);
            await vm.PrepareAsync();
            await vm.StreamAsync();
            return vm;
        }
        catch
        {
            await vm.DisposeAsync();
            throw;
        }
    }

    private async Task KillAsync(LabVm vm, LabHost host)
    {
        await vm.Fleet.Agents[host].KillAsync(Cancelled);
        world.Transcript.Tell($"kill -9 of the agent of {host.Name.Text}");
    }

    private async Task RestartAsync(LabVm vm, LabHost host)
    {
        await vm.Fleet.StartAgentAsync(host);
        world.Transcript.Tell($"the agent of {host.Name.Text} is started again");
    }

    private static Task StateOfAsync(LabVm vm, LabHost host, Func<string, bool> condition) => Waiting.UntilAsync(
        async () => condition((await vm.Fleet.Client.GetHostAsync(host.Name.Text, Cancelled)).State), $"another state of {host.Name.Text}", Cancelled);

    private static async Task<long> CountAsync(LabVm vm) => (await vm.Fleet.Client.GetHitsAsync(LabVm.Id, Cancelled)).Items
        .Where(hit => hit.Host == vm.Host2.Name.Text && hit.Frame == FrameMath.FrameOf(LabVm.AddressOf(Page))).Sum(hit => hit.Count);
}
