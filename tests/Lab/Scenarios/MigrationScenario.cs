using Fleet.Contracts.Hits;
using Fleet.Demo.Running;
using Fleet.Demo.Story;
using Fleet.Lab.Tests.Emulation;
using Fleet.Lab.Tests.Running;
using Fleet.TinyVmm.Control;

namespace Fleet.Lab.Tests.Scenarios;

/// <summary>
/// (c) A VM leaves a host whose memory failed under it. On the next host the same page is healthy memory, and the guest gets a machine check all
/// the same: a real SIGBUS in the vCPU's thread, on a real KVM.
/// </summary>
[Collection("lab")]
[Trait("Invariant", "I1")]
[Trait("Quick", "yes")]
public sealed class MigrationScenario(LabWorld world)
{
    private const int Page = 20;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact(Timeout = 300_000)]
    public async Task Migrate_AwayFromFailedMemory_TheGuestsTouchOnTheNextHostIsAMachineCheck()
    {
        world.Transcript.Chapter("(c) A VM migrates away from failed memory");
        await using var vm = await LabVm.StartAsync(world);
        var pfn = await HostKernel.FailMemoryAsync(vm.Source, LabVm.AddressOf(Page));
        world.Transcript.Tell($"memory fails under page {Page}: {await HostKernel.MemoryFailureLineAsync(vm.Host1, pfn)}");
        await vm.TouchOnSourceAsync(Page);

        await vm.PrepareAsync();
        await vm.StreamAsync();
        var permit = await vm.PermitAsync();
        await vm.CompleteAsync();
        await vm.EndSourceAsync();
        var entry = await HostKernel.PageTableEntryAsync(vm.Target, LabVm.AddressOf(Page));
        Assert.True(entry.IsPoisonMarker, $"page table entry {entry}");
        world.Transcript.Tell($"the kernel of {vm.Host2.Name.Text} has a poison marker in the VMM's page table there: {entry}");

        await HostKernel.WatchAsync(vm.Host2, LabVm.AddressOf(Page));
        world.Transcript.Tell($"the guest touches page {Page} on {vm.Host2.Name.Text}: {await LabVm.MachineCheckAsync(vm.Target, Page)}");
        await TheKernelSawItAsync(vm);

        var hit = await vm.HitAsync(vm.Host2, Page, found => found.Evidence == HitEvidences.KvmPageFault);
        Assert.Equal((permit.Epoch, HitOutcomes.MceInjected, HitAccesses.Read), (hit.PlacementEpoch, hit.Outcome, hit.Access));
        Assert.Equal(($"0x{LabVm.AddressOf(Page):x}", 0), (hit.GuestPhysicalAddress, hit.Vcpu));
        Assert.Equal(1, (await vm.Fleet.Client.GetHitsAsync(LabVm.Id, Cancelled)).Items.Where(found => found.Host == vm.Host2.Name.Text).Sum(found => found.Count));
        await vm.IntactButForAsync(vm.Target, Page);
    }

    /// <summary>Negative control: without Fleet the guest reads zeros there, and notices nothing.</summary>
    [Fact(Timeout = 300_000)]
    public async Task Migrate_WithProtectionOff_TheGuestReadsZeros()
    {
        world.Transcript.Chapter("(c) The same with protection off");
        await using var fleet = await LabFleet.StartAsync(world);
        var source = await LabVm.StartUnguardedAsync(fleet);
        await using var sourceGuest = source.Guest;
        var pfn = await HostKernel.FailMemoryAsync(source, LabVm.AddressOf(Page));
        world.Transcript.Tell($"memory fails under page {Page}: {await HostKernel.MemoryFailureLineAsync(world.Host1, pfn)}");
        world.Transcript.Tell($"the guest touches it on host-1: {await LabVm.MachineCheckAsync(source, Page)}");

        var target = await fleet.StartVmmAsync(
            world.Host2, "vm-control", LabVm.Memory, new VmmStart(Incoming: LabHost.IncomingStream, Unprotected: true), attached: false);
        await using var targetGuest = target.Guest;
        await source.Guest.MigrateOutAsync(LabHost.OutgoingStream, Cancelled);
        await target.Guest.ResumeAsync(Cancelled);

        var after = await target.Guest.ReadAsync(LabVm.AddressOf(Page), Cancelled);
        Assert.Equal((CommandAnswer.Data, "0x0"), (after.Outcome, after.Value));
        Assert.Equal(0, (await target.Guest.StatusAsync(Cancelled)).MachineChecks);
        Assert.Equal(LabVm.FirstWord(Page + 1), (await target.Guest.ReadAsync(LabVm.AddressOf(Page + 1), Cancelled)).Value);
        world.Transcript.Tell($"the guest touches it on host-2: {Evidence.Describe(after)}, no machine check. That is the corruption");
    }

    private static async Task TheKernelSawItAsync(LabVm vm)
    {
        var faults = await HostKernel.WatchedAsync(vm.Host2, "kvm_page_fault");
        var signals = await HostKernel.WatchedAsync(vm.Host2, "signal_generate");
        await HostKernel.EndWatchAsync(vm.Host2);
        Assert.Contains(faults, line => line.Contains($"address 0x{LabVm.AddressOf(Page):x16}", StringComparison.Ordinal));
        Assert.Contains(signals, line => line.Contains("sig=7", StringComparison.Ordinal) && line.Contains("code=4", StringComparison.Ordinal));
        vm.Fleet.World.Transcript.Tell("the host's own trace of that moment:");
        vm.Fleet.World.Transcript.Quote(string.Join('\n', faults.Concat(signals)));
    }
}
