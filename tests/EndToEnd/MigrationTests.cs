using Fleet.Contracts;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Demo.Running;
using Fleet.Demo.Story;
using Fleet.Tests.Shared;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;

namespace Fleet.EndToEnd.Tests;

/// <summary>Poison follows the VM: real control plane, real agents, real VMMs.</summary>
public sealed class MigrationTests : IAsyncLifetime
{
    private const string Vm = "vm-1";
    private const ulong Data = 16 << 20;
    private const long DataBytes = 64 * 4096;
    private const uint Seed = 77;
    private LocalFleet _fleet = null!;
    private readonly Dictionary<string, ChildProcess> _agents = [];

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        Requires.Kvm();
        _fleet = await LocalFleet.StartAsync(Cancelled);
    }

    public ValueTask DisposeAsync() => _fleet.DisposeAsync();

    [Theory]
    [InlineData("marker", "kvm")]
    [InlineData("trap", "kvm")]
    [InlineData("marker", "software")]
    [InlineData("trap", "software")]
    [Trait("Invariant", "I1")]
    public async Task Migrate_VmWithAPoisonedPage_TargetEnforcesBeforeTheGuestRuns(string policy, string vcpu)
    {
        await AgentsAsync(policy, "host-a", "host-b");
        await using var source = await StartVmAsync("host-a", vcpu);
        await source.WriteAsync(Data, DataBytes, Seed, Cancelled);
        await PoisonAsync(source, 4096 + 20);
        var migrating = new Migrating(_fleet, Vm, "64M", vcpu);

        var (_, target, permit) = await migrating.MigrateAsync("m-1", source, "host-b", Cancelled);
        await using var __ = target;

        var vm = await _fleet.Client.GetVmAsync(Vm, TimeSpan.FromSeconds(10), Cancelled);
        Assert.Equal(("host-b", permit.Epoch), (vm.Host, vm.PlacementEpoch));
        await AssertIntactExceptAsync(target, 20);
        var read = await target.ReadAsync(FrameMath.AddressOf(4096 + 20), Cancelled);
        Assert.True(Evidence.IsMachineCheck(read, 4096 + 20), Evidence.Describe(read));
        await LocalFleet.UntilAsync(
            async () => (await _fleet.Client.GetHitsAsync(Vm, Cancelled)).Items is [{ Host: "host-b", Frame: 4096 + 20 } hit] && hit.PlacementEpoch == permit.Epoch,
            "the hit on host-b", _agents["host-b"], Cancelled);
        Assert.NotEqual("running", (await source.StatusAsync(Cancelled)).State);
    }

    private async Task AgentsAsync(string policy, params string[] hosts)
    {
        foreach (var host in hosts)
        {
            _agents[host] = await _fleet.StartAgentAsync(host, Cancelled, policy);
        }
    }

    private async Task<TinyVmmClient> StartVmAsync(string host, string vcpu)
    {
        await _fleet.Client.PutVmAsync(Vm, new VmRequest(host, [new MemoryRegion("0x0", 64 << 20, 4096)], new VmAttach(AttachKinds.Handoff)), Cancelled);
        var (process, guest) = await _fleet.StartVmmAsync(Vm, "64M", host, Cancelled, new VmmStart(Barrier: true, Vcpu: vcpu));
        await LocalFleet.UntilAsync(async () => (await guest.StatusAsync(Cancelled)).State == "running", "the agent to let the guest run", process, Cancelled);
        return guest;
    }

    private async Task PoisonAsync(TinyVmmClient guest, long frame)
    {
        var before = (await _fleet.Client.GetPagesAsync(Vm, Cancelled)).Items.Count;
        await guest.MemoryErrorAsync(FrameMath.AddressOf(frame), 12, PageClasses.Srar, Cancelled);
        await LocalFleet.UntilAsync(async () => (await _fleet.Client.GetPagesAsync(Vm, Cancelled)).Items.Count > before, "the page", null, Cancelled);
        var vm = await _fleet.Client.GetVmAsync(Vm, TimeSpan.FromSeconds(20), Cancelled);
        Assert.Contains(vm.Enforcement, enforcement => enforcement.Host == vm.Host && enforcement.State == EnforcementStates.Armed);
    }

    private static async Task AssertIntactExceptAsync(TinyVmmClient guest, params long[] pages)
    {
        for (var page = 0L; page < DataBytes / 4096; page++)
        {
            if (!pages.Contains(page))
            {
                var address = Data + ((ulong)page * 4096);
                var answer = await guest.ChecksumAsync(address, 4096, Cancelled);
                Assert.Equal($"0x{GuestArithmetic.PatternChecksum(address, 4096, Seed):x}", answer.Checksum);
            }
        }
    }
}
