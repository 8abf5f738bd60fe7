using Fleet.Contracts;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Demo.Running;
using Fleet.Demo.Story;
using Fleet.Lab.Tests.Emulation;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;

namespace Fleet.Lab.Tests.Running;

/// <summary>A VM on host 1 whose guest wrote a pattern, and its way to host 2.</summary>
internal sealed class LabVm : IAsyncDisposable
{
    public const string Id = "vm-1";
    public const string Migration = "m-1";
    public const long FirstFrame = (long)(Data / 4096);
    public const int Pages = 64;
    public const string Memory = "32M";
    private const ulong Data = 16 << 20;
    private const uint Seed = 77;

    private readonly string _backing;

    private LabVm(LabFleet fleet, string backing) => (Fleet, _backing) = (fleet, backing);

    public LabFleet Fleet { get; }

    public LabVmm Source { get; private set; } = null!;

    public LabVmm Target { get; private set; } = null!;

    public LabHost Host1 => Fleet.World.Host1;

    public LabHost Host2 => Fleet.World.Host2;

    private Transcript Story => Fleet.World.Transcript;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    public static ulong AddressOf(int page) => FrameMath.AddressOf(FirstFrame + page);

    /// <param name="backing">What guest RAM is made of, as TinyVmm takes it.</param>
    /// <param name="apiArguments">Further settings of the control plane.</param>
    public static async Task<LabVm> StartAsync(LabWorld world, string policy = "marker", string backing = "memfd", params IReadOnlyList<string> apiArguments)
    {
        var vm = new LabVm(await LabFleet.StartAsync(world, policy, apiArguments), backing);
        try
        {
            await vm.StartAsync();
            return vm;
        }
        catch
        {
            await vm.DisposeAsync();
            throw;
        }
    }

    /// <summary>A guest with the same pattern, and no agent: for negative controls.</summary>
    public static async Task<LabVmm> StartUnguardedAsync(LabFleet fleet)
    {
        var vmm = await fleet.StartVmmAsync(fleet.World.Host1, "vm-control", Memory, new VmmStart(), attached: false);
        await vmm.Guest.WriteAsync(Data, Pages * 4096, Seed, Cancelled);
        return vmm;
    }

    /// <summary>The source's guest touches pages that are bad there, and waits until the control plane has them armed.</summary>
    public async Task TouchOnSourceAsync(params int[] pages)
    {
        foreach (var page in pages)
        {
            Story.Tell($"the guest touches page {page} on {Host1.Name.Text}: {await MachineCheckAsync(Source, page)}");
        }

        await KnownAsync(pages);
    }

    /// <summary>As a page that failed on a host before: here its memory is healthy.</summary>
    public async Task ReportByOperatorAsync(params int[] pages)
    {
        await Fleet.Client.AddPagesAsync(
            Id, new AddPagesRequest([.. pages.Select(page => new PageReport(FirstFrame + page, 12, PageClasses.Srar, PageSources.Operator))], "lab"), Cancelled);
        Story.Tell($"an operator reports page {string.Join(", ", pages)}");
    }

    /// <summary>Until the control plane knows exactly these pages, and the owner's agent has them armed.</summary>
    public async Task KnownAsync(params int[] pages)
    {
        var expected = pages.Order().Select(page => FirstFrame + page).ToArray();
        await Waiting.UntilAsync(
            async () => (await Fleet.Client.GetPagesAsync(Id, Cancelled)).Items.Select(item => item.Frame).Order().SequenceEqual(expected),
            $"the control plane to know exactly the pages {string.Join(", ", pages)}", Cancelled, () => StateAsync());
        await Waiting.UntilAsync(
            async () => await Fleet.Client.GetVmAsync(Id, null, Cancelled) is var vm
                && vm.Enforcement.Any(item => item.Host == vm.Host && item.State == EnforcementStates.Armed && item.ArmedGeneration == vm.Generation),
            "the owner's agent to have them armed", Cancelled, () => StateAsync());
        Story.Tell($"the control plane knows page {string.Join(", ", pages)} of the VM, and its host has it armed");
    }

    /// <summary>Announces the migration, and starts the VMM on host 2 that waits for the stream.</summary>
    public async Task PrepareAsync()
    {
        await Fleet.Client.PutMigrationAsync(Migration, new MigrationRequest(Id, Host2.Name.Text, new VmAttach(AttachKinds.Handoff)), Cancelled);
        Target = await Fleet.StartVmmAsync(Host2, Id, Memory, new VmmStart(Barrier: true, LabHost.IncomingStream, Backing: _backing));
        Story.Tell($"migration {Migration} to {Host2.Name.Text} is announced; a VMM waits there for the stream");
    }

    /// <summary>The guest's memory crosses to host 2; the source's guest stays paused.</summary>
    public async Task StreamAsync()
    {
        await Source.Guest.MigrateOutAsync(LabHost.OutgoingStream, Cancelled);
        Story.Tell("the guest is paused, and its memory has crossed to the other host");
        await MigrationAsync(migration => migration.State == MigrationStates.Ready, "ready");
    }

    /// <summary>Asks for the permit until it is there.</summary>
    public async Task<Permit> PermitAsync(string? sourceFenced = null)
    {
        Permit? permit = null;
        await Waiting.UntilAsync(
            async () => (permit = await Fleet.Client.SwitchoverAsync(Migration, TimeSpan.FromSeconds(5), Cancelled, sourceFenced)) is not null,
            "the permit", Cancelled, () => StateAsync());
        Story.Tell($"the gate grants: the VM may run on {Host2.Name.Text}");
        return permit!;
    }

    /// <summary>Enters <c>switching</c>, and waits until exactly this is missing.</summary>
    public async Task SwitchWithoutAsync(string reason)
    {
        Assert.Null(await Fleet.Client.SwitchoverAsync(Migration, TimeSpan.Zero, Cancelled));
        await MigrationAsync(migration => migration.Reasons.Select(item => item.Code).SequenceEqual([reason]), reason);
        Story.Tell($"switching; the gate waits: {reason}");
    }

    public async Task CompleteAsync()
    {
        await Waiting.UntilAsync(() => Fleet.Client.CompleteAsync(Migration, Cancelled), "the guest to run on the target", Cancelled, () => StateAsync());
        Assert.Equal("running", (await Target.Guest.StatusAsync(Cancelled)).State);
        Story.Tell($"the guest runs on {Host2.Name.Text}");
    }

    public async Task EndSourceAsync() => await Source.Process.KillAsync(Cancelled, "TERM");

    /// <summary>Until the migration is as expected.</summary>
    public Task MigrationAsync(Func<MigrationResource, bool> condition, string what) => Waiting.UntilAsync(
        async () => condition(await Fleet.Client.GetMigrationAsync(Migration, Cancelled)), $"the migration: {what}", Cancelled, () => StateAsync());

    /// <summary>The guest touches a page, and its machine-check handler runs.</summary>
    /// <returns>What the handler found.</returns>
    public static async Task<string> MachineCheckAsync(LabVmm vmm, int page)
    {
        var answer = await vmm.Guest.ReadAsync(AddressOf(page), Cancelled);
        Assert.True(Evidence.IsMachineCheck(answer, FirstFrame + page), $"page {page}: {Evidence.Describe(answer)}");
        return Evidence.Describe(answer);
    }

    /// <summary>The guest reads every page: these are machine checks, all others are as it wrote them.</summary>
    public async Task IntactButForAsync(LabVmm vmm, params int[] pages)
    {
        for (var page = 0; page < Pages; page++)
        {
            if (pages.Contains(page))
            {
                await MachineCheckAsync(vmm, page);
            }
            else
            {
                var checksum = (await vmm.Guest.ChecksumAsync(AddressOf(page), 4096, Cancelled)).Checksum;
                Assert.Equal($"0x{GuestArithmetic.PatternChecksum(AddressOf(page), 4096, Seed):x}", checksum);
            }
        }

        Story.Tell($"the guest's checksums of the other {Pages - pages.Length} pages are right");
    }

    /// <summary>Until there is a hit of the page on the host.</summary>
    public async Task<HitResource> HitAsync(LabHost host, int page, Func<HitResource, bool>? condition = null)
    {
        HitResource? found = null;
        await Waiting.UntilAsync(
            async () => (found = (await Fleet.Client.GetHitsAsync(Id, Cancelled)).Items
                .FirstOrDefault(hit => hit.Host == host.Name.Text && hit.Frame == FirstFrame + page && (condition?.Invoke(hit) ?? true))) is not null,
            $"the hit of page {page}", Cancelled, () => StateAsync());
        Story.Tell($"hit: frame {found!.Frame} ({found.GuestPhysicalAddress}) on {found.Host}, {found.Access} by vCPU {found.Vcpu}, "
            + $"evidence {found.Evidence}, outcome {found.Outcome}, count {found.Count}");
        return found;
    }

    /// <summary>The pattern of the page's first dword.</summary>
    public static string FirstWord(int page) => Evidence.Hex(GuestArithmetic.Pattern(AddressOf(page), Seed));

    public async ValueTask DisposeAsync()
    {
        if (TestContext.Current.TestState?.Result == TestResult.Failed)
        {
            Story.Quote(await StateAsync());
        }

        foreach (var vmm in new[] { Source, Target }.OfType<LabVmm>())
        {
            await vmm.Guest.DisposeAsync();
        }

        await Fleet.DisposeAsync();
    }

    /// <summary>What the agents said last, for messages.</summary>
    private async Task<string> StateAsync()
    {
        var text = new List<string>();
        foreach (var (host, agent) in Fleet.Agents)
        {
            text.Add($"{host.Name.Text}:\n{await agent.TailAsync(CancellationToken.None)}");
        }

        return string.Join('\n', text);
    }

    private async Task StartAsync()
    {
        await Fleet.Client.PutVmAsync(Id, new VmRequest(Host1.Name.Text, [new MemoryRegion("0x0", 32 << 20, _backing == "hugetlb" ? 2 << 20 : 4096)], new VmAttach(AttachKinds.Handoff)), Cancelled);
        Source = await Fleet.StartVmmAsync(Host1, Id, Memory, new VmmStart(Barrier: true, Backing: _backing));
        await RunsAsync(Source);
        await Source.Guest.WriteAsync(Data, Pages * 4096, Seed, Cancelled);
        Story.Tell($"a guest runs on {Host1.Name.Text} under KVM, and wrote {Pages} pages");
    }

    private Task RunsAsync(LabVmm vmm) => Waiting.UntilAsync(
        async () => (await vmm.Guest.StatusAsync(Cancelled)).State == "running", "the agent to let the guest run", Cancelled, () => StateAsync());
}
