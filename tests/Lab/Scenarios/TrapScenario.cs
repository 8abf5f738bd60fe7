using Fleet.Contracts.Hits;
using Fleet.Lab.Tests.Running;

namespace Fleet.Lab.Tests.Scenarios;

/// <summary>(e) Policy trap: the page is left as a registered hole, and poisoned at its first access, which the agent sees itself.</summary>
[Collection("lab")]
[Trait("Invariant", "I1")]
public sealed class TrapScenario(LabWorld world)
{
    private const int Page = 33;

    [Fact(Timeout = 300_000)]
    public async Task Trap_AfterMigration_TheFirstTouchIsSeenAsAnEventAndIsAMachineCheck()
    {
        world.Transcript.Chapter("(e) Policy trap: poisoned at the first access");
        await using var vm = await LabVm.StartAsync(world, "trap");
        var pfn = await HostKernel.FailMemoryAsync(vm.Source, LabVm.AddressOf(Page));
        world.Transcript.Tell($"memory fails under page {Page}: {await HostKernel.MemoryFailureLineAsync(vm.Host1, pfn)}");
        await vm.TouchOnSourceAsync(Page);
        await vm.PrepareAsync();
        await vm.StreamAsync();
        await vm.PermitAsync();
        await vm.CompleteAsync();

        var before = await HostKernel.PageTableEntryAsync(vm.Target, LabVm.AddressOf(Page));
        Assert.True(before.IsEmpty, $"no page and no marker yet, but {before}");
        world.Transcript.Tell("on the next host the page is a hole that traps, not yet a poison marker");
        world.Transcript.Tell($"the guest touches page {Page}: {await LabVm.MachineCheckAsync(vm.Target, Page)}");
        var after = await HostKernel.PageTableEntryAsync(vm.Target, LabVm.AddressOf(Page));
        Assert.True(after.IsPoisonMarker, $"page table entry {after}");
        world.Transcript.Tell("now it is a poison marker");

        await vm.IntactButForAsync(vm.Target, Page);
        var hit = await vm.HitAsync(vm.Host2, Page);
        Assert.Equal(HitOutcomes.MceInjected, hit.Outcome);
    }
}
