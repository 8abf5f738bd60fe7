using System.Net.Http.Json;
using Fleet.Contracts;
using Fleet.Contracts.Faults;
using Fleet.Contracts.Pages;
using Fleet.Lab.Tests.Emulation;
using Fleet.Lab.Tests.Running;

namespace Fleet.Lab.Tests.Scenarios;

/// <summary>(b) Memory fails under a guest that does not touch it: the agent finds VM and frame, and the host keeps the fault.</summary>
[Collection("lab")]
[Trait("Invariant", "I2")]
[Trait("Quick", "yes")]
public sealed class DetectionScenario(LabWorld world)
{
    private const int Page = 41;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact(Timeout = 300_000)]
    public async Task MemoryFailure_UnderAGuestThatDoesNotTouchIt_IsReportedWithVmAndFrame()
    {
        world.Transcript.Chapter("(b) Memory fails under a guest");
        await using var vm = await LabVm.StartAsync(world);
        var pfn = await HostKernel.FailMemoryAsync(vm.Source, LabVm.AddressOf(Page));
        world.Transcript.Tell($"memory fails under page {Page}, which nobody touches: {await HostKernel.MemoryFailureLineAsync(vm.Host1, pfn)}");

        await vm.KnownAsync(Page);
        var page = (await vm.Fleet.Client.GetPagesAsync(LabVm.Id, Cancelled)).Items.Single();
        Assert.Equal((PageSources.MemoryFailure, 12, vm.Host1.Name.Text), (page.Source, page.Shift, page.FirstHost));
        Assert.Equal(0, (await vm.Source.Guest.StatusAsync(Cancelled)).MachineChecks);

        var fault = await FaultAsync(vm, pfn);
        Assert.Equal((vm.Host1.Name.Text, FaultKinds.Uncorrected), (fault.Host, fault.Kind));
        Assert.Equal((LabVm.Id, LabVm.FirstFrame + Page), (fault.Vm, fault.Frame));
        world.Transcript.Tell($"the host's fault: physical address {fault.PhysicalAddress}, frame {fault.Frame} of {fault.Vm}, module {fault.Dimm?.ToString() ?? "unknown"}");

        world.Transcript.Tell($"the guest touches page {Page}: {await LabVm.MachineCheckAsync(vm.Source, Page)}");
        await vm.IntactButForAsync(vm.Source, Page);
        await vm.HitAsync(vm.Host1, Page);
    }

    private static async Task<FaultResource> FaultAsync(LabVm vm, ulong pfn)
    {
        FaultResource? found = null;
        await Waiting.UntilAsync(
            async () =>
            {
                var faults = await vm.Fleet.Client.Http.GetFromJsonAsync(
                    new Uri($"{Routes.Faults}?host={vm.Host1.Name.Text}", UriKind.Relative), FleetJson.Default.ItemListFaultResource, Cancelled);
                found = faults!.Items.SingleOrDefault(fault => fault.PhysicalFrame == (long)pfn);
                return found is not null;
            },
            $"the fault of frame 0x{pfn:x}", Cancelled);
        return found!;
    }
}
