using Fleet.Contracts;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Demo.Running;
using Fleet.Demo.Story;
using Fleet.Tests.Shared;
using Fleet.TinyVmm.Control;

namespace Fleet.EndToEnd.Tests;

/// <summary>A control plane, an agent and a VM on it, attached: every test's starting point.</summary>
internal sealed class OneVm : IAsyncDisposable
{
    public const string Host = "host-a";
    public const string Vm = "vm-1";

    private OneVm(LocalFleet fleet) => Fleet = fleet;

    public LocalFleet Fleet { get; }

    public ChildProcess Agent { get; private set; } = null!;

    public ChildProcess Vmm { get; private set; } = null!;

    public TinyVmmClient Guest { get; private set; } = null!;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    public static async Task<OneVm> StartAsync()
    {
        Requires.Kvm();
        var one = new OneVm(await LocalFleet.StartAsync(Cancelled));
        try
        {
            await one.StartAgentAsync();
            await one.Fleet.Client.PutVmAsync(Vm, Request, Cancelled);
            await one.StartVmmAsync();
            return one;
        }
        catch
        {
            await one.DisposeAsync();
            throw;
        }
    }

    public static VmRequest Request => new(Host, [new MemoryRegion("0x0", 64 << 20, 4096)], new VmAttach(AttachKinds.Handoff));

    public async Task StartAgentAsync() => Agent = await Fleet.StartAgentAsync(Host, Cancelled);

    /// <summary>kill -9, and another one; the control plane may be away.</summary>
    public async Task RestartAgentAsync()
    {
        await Agent.KillAsync();
        Agent = await Fleet.LaunchAgentAsync(Host, Cancelled);
    }

    public async Task StartVmmAsync()
    {
        (Vmm, Guest) = await Fleet.StartVmmAsync(Vm, "64M", Host, Cancelled);
        await AttachedAsync();
    }

    /// <param name="agent">Where the test started another one itself.</param>
    public Task AttachedAsync(ChildProcess? agent = null) =>
        LocalFleet.UntilAsync(async () => (await Guest.StatusAsync(Cancelled)).Attached, "the handoff", agent ?? Agent, Cancelled);

    public async Task<AddPagesResult> PoisonAsync(params long[] frames) =>
        await Fleet.Client.AddPagesAsync(Vm, new AddPagesRequest([.. frames.Select(frame => new PageReport(frame, 12, PageClasses.Srar, PageSources.Operator))], "test"), Cancelled);

    /// <summary>Until the host confirmed the present generation.</summary>
    public async Task<VmResource> ArmedAsync()
    {
        var vm = await Fleet.Client.GetVmAsync(Vm, TimeSpan.FromSeconds(30), Cancelled);
        Assert.Equal((EnforcementStates.Armed, (long?)vm.Generation), (vm.Enforcement[0].State, vm.Enforcement[0].ArmedGeneration));
        return vm;
    }

    public async Task AssertMachineCheckAsync(long frame)
    {
        var answer = await Guest.ReadAsync(FrameMath.AddressOf(frame) + 16, Cancelled);
        Assert.True(Evidence.IsMachineCheck(answer, frame), $"frame {frame}: {Evidence.Describe(answer)}");
    }

    public async Task<uint> ReadAsync(long frame)
    {
        var answer = await Guest.ReadAsync(FrameMath.AddressOf(frame), Cancelled);
        Assert.Equal(CommandAnswer.Data, answer.Outcome);
        return HexAddress.TryParse(answer.Value, out var value) ? (uint)value : throw new FormatException(answer.Value);
    }

    public async Task<IReadOnlyList<HitResource>> HitsAsync(long accesses)
    {
        IReadOnlyList<HitResource> hits = [];
        await LocalFleet.UntilAsync(
            async () => (hits = (await Fleet.Client.GetHitsAsync(Vm, Cancelled)).Items).Sum(hit => hit.Count) >= accesses, $"{accesses} hits", null, Cancelled);
        return hits;
    }

    public async ValueTask DisposeAsync()
    {
        if (Guest is not null)
        {
            await Guest.DisposeAsync();
        }

        await Fleet.DisposeAsync();
    }
}
