using Fleet.Contracts;
using Fleet.Contracts.Hosts;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Demo.Running;
using Fleet.Demo.Story;
using Fleet.Tests.Shared;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;

namespace Fleet.EndToEnd.Tests;

/// <summary>
/// A control plane, agents, and a VM that moves between their hosts; its guest wrote a pattern of 64 pages. Disposing it also
/// asserts that the guest never ran in two VMMs at once.
/// </summary>
internal sealed class MovingVm : IAsyncDisposable
{
    public const string Vm = "vm-1";
    public const string Migration = "m-1";
    public const string Source = "host-a";
    public const string Target = "host-b";
    public const long FirstFrame = (long)(Data / 4096);
    private const string Memory = "64M";
    private const ulong Data = 16 << 20;
    private const int DataPages = 64;
    private const uint Seed = 77;
    private readonly string _policy;
    private readonly string _vcpu;
    private readonly string _backing;
    private readonly Migrating _migrating;
    private readonly OneGuestWatch _watch = new();
    private readonly List<TinyVmmClient> _guests = [];

    private MovingVm(LocalFleet fleet, string policy, string vcpu, string backing)
    {
        (Fleet, _policy, _vcpu, _backing) = (fleet, policy, vcpu, backing);
        _migrating = new Migrating(fleet, Vm, Memory, vcpu, backing);
    }

    public LocalFleet Fleet { get; }

    public Dictionary<string, ChildProcess> Agents { get; } = [];

    /// <summary>The VMM that has the guest, and its process.</summary>
    public TinyVmmClient Guest { get; private set; } = null!;

    public ChildProcess Vmm { get; private set; } = null!;

    /// <summary>The VMM that receives.</summary>
    public TinyVmmClient TargetGuest { get; private set; } = null!;

    public ChildProcess TargetVmm { get; private set; } = null!;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    public static Task<MovingVm> StartAsync(string policy = "marker", string vcpu = "software") => StartAsync(policy, vcpu, Source, Target);

    /// <summary>With a control plane that gives silent hosts up after 3 s, for the overrides.</summary>
    public static Task<MovingVm> StartImpatientAsync() => StartOnAsync(LocalFleet.StartAsync(Cancelled, "--Fleet:HeartbeatInterval=00:00:02"), "marker", "software", Source, Target);

    /// <summary>The VM runs on the first of the hosts.</summary>
    public static Task<MovingVm> StartAsync(string policy, string vcpu, params string[] hosts) => StartOnAsync(LocalFleet.StartAsync(Cancelled), policy, vcpu, hosts);

    /// <param name="backing">What the guest's RAM is made of: <c>anonymous</c> or <c>hugetlb</c>.</param>
    public static Task<MovingVm> StartBackedAsync(string backing, string policy, string vcpu) =>
        StartWithAsync(LocalFleet.StartAsync(Cancelled), policy, vcpu, backing, Source, Target);

    private static Task<MovingVm> StartOnAsync(Task<LocalFleet> fleet, string policy, string vcpu, params string[] hosts) =>
        StartWithAsync(fleet, policy, vcpu, "memfd", hosts);

    private static async Task<MovingVm> StartWithAsync(Task<LocalFleet> fleet, string policy, string vcpu, string backing, params string[] hosts)
    {
        Requires.Kvm();
        var moving = new MovingVm(await fleet, policy, vcpu, backing);
        try
        {
            foreach (var host in hosts)
            {
                await moving.StartAgentAsync(host);
            }

            await moving.StartVmAsync(hosts[0]);
            return moving;
        }
        catch
        {
            await moving.DisposeAsync();
            throw;
        }
    }

    public OneGuestWatch Watch => _watch;

    public async Task StartAgentAsync(string host) => Agents[host] = await Fleet.StartAgentAsync(host, Cancelled, _policy);

    public Task KillAgentAsync(string host) => Agents[host].KillAsync();

    /// <summary>Until the control plane takes the host for no longer online.</summary>
    public Task SilentAsync(string host) => LocalFleet.UntilAsync(
        async () => (await Fleet.Client.GetHostAsync(host, Cancelled)).State != HostStates.Online, $"{host} to be silent for too long", null, Cancelled);

    public AgentDisk DiskOf(string host) => new(Path.Combine(Fleet.Root, host), Vm);

    /// <summary>A page of the pattern fails under the guest; returns once the owner's agent has it armed.</summary>
    public async Task PoisonAsync(int page)
    {
        await FailMemoryAsync(Guest, page);
        await ReportedAsync(page);
        var vm = await Fleet.Client.GetVmAsync(Vm, TimeSpan.FromSeconds(20), Cancelled);
        Assert.Contains(vm.Enforcement, enforcement => enforcement.Host == vm.Host && enforcement.State == EnforcementStates.Armed);
    }

    public static Task FailMemoryAsync(TinyVmmClient guest, int page) =>
        guest.MemoryErrorAsync(FrameMath.AddressOf(FirstFrame + page), 12, PageClasses.Srar, Cancelled);

    /// <summary>Until the host's agent has confirmed the present set in its VMM.</summary>
    public Task ArmedAsync(string host) => LocalFleet.UntilAsync(
        async () => (await Fleet.Client.GetVmAsync(Vm, null, Cancelled)).Enforcement.Any(item => item.Host == host && item.State == EnforcementStates.Armed),
        $"{host} to have it armed", Agents[host], Cancelled);

    public Task ReportedAsync(int page) => LocalFleet.UntilAsync(
        async () => (await Fleet.Client.GetPagesAsync(Vm, Cancelled)).Items.Any(item => item.Frame == FirstFrame + page), $"the report of page {page}", null, Cancelled);

    public Task AddByOperatorAsync(int page) => Fleet.Client.AddPagesAsync(
        Vm, new AddPagesRequest([new PageReport(FirstFrame + page, 12, PageClasses.Srar, PageSources.Operator)], "test"), Cancelled);

    /// <summary>Announces the migration, starts the target's VMM, and streams the guest to it, which stays paused.</summary>
    public async Task StreamAsync(string migration = Migration, string target = Target)
    {
        await Guest.MigrateOutAsync(await PrepareAsync(migration, target), Cancelled);
        await StateAsync(MigrationStates.Ready, migration);
    }

    /// <returns>Where the target's VMM waits for the stream.</returns>
    public async Task<string> PrepareAsync(string migration = Migration, string target = Target)
    {
        (TargetVmm, TargetGuest, var endpoint) = await _migrating.PrepareAsync(migration, target, Cancelled);
        await WatchAsync(TargetVmm, TargetGuest);
        return endpoint;
    }

    /// <summary>Enters <c>switching</c> and does not wait.</summary>
    public async Task BeginSwitchAsync(string migration = Migration) => Assert.Null(await Fleet.Client.SwitchoverAsync(migration, TimeSpan.Zero, Cancelled));

    public Task<Permit> PermitAsync(string migration = Migration) => _migrating.SwitchoverAsync(migration, Cancelled);

    /// <summary>Waits for the guest to run on the target, ends the migration and the source's VMM.</summary>
    public async Task CompleteAsync(string migration = Migration)
    {
        await CompleteKeepingSourceAsync(migration);
        await EndSourceAsync();
    }

    /// <summary>As <see cref="CompleteAsync"/>, but nobody has ended the source's VMM yet.</summary>
    public async Task CompleteKeepingSourceAsync(string migration = Migration)
    {
        await _migrating.CompleteAsync(migration, Cancelled);
        Assert.NotEqual("running", (await StatusOfSourceAsync())?.State);
        await RunsAsync(TargetGuest);
    }

    public async Task EndSourceAsync()
    {
        await Vmm.TerminateAsync();
        (Vmm, Guest) = (TargetVmm, TargetGuest);
    }

    public Task RunsOnTargetAsync() => RunsAsync(TargetGuest);

    /// <summary>Until the gate's reasons are these and no others.</summary>
    public Task ReasonsAsync(params string[] codes) => ReasonsOfAsync(Migration, codes);

    public Task ReasonsOfAsync(string migration, params string[] codes) => UntilAsync(
        found => found.Reasons.Select(reason => reason.Code).Order().SequenceEqual(codes.Order()), $"reasons {string.Join(", ", codes)}", migration);

    public Task StateAsync(string state, string migration = Migration) => UntilAsync(found => found.State == state, state, migration);

    /// <summary>Stops the migration in <c>granted</c>: the target's agent has acknowledged and died, and does not see the permit.</summary>
    public async Task<Permit> GrantWithoutTargetAgentAsync()
    {
        await KillAgentAsync(Source);
        await BeginSwitchAsync();
        await ReasonsAsync("seal-missing");
        await KillAgentAsync(Target);
        await StartAgentAsync(Source);
        return await PermitAsync();
    }

    /// <summary>Stops the migration in <c>switching</c>, sealed: the target's agent has died before it could acknowledge.</summary>
    public async Task SealWithoutTargetAgentAsync()
    {
        await KillAgentAsync(Target);
        await BeginSwitchAsync();
        await ReasonsAsync("ack-missing");
    }

    /// <summary>The source's guest runs again, once its agent lets it; the pause of the stream is the operator's to end.</summary>
    public async Task ResumeSourceAsync()
    {
        await LocalFleet.UntilAsync(
            async () =>
            {
                try
                {
                    await Guest.ResumeAsync(Cancelled);
                    return true;
                }
                catch (ControlException exception) when (exception.Code == ControlException.Held)
                {
                    return false;
                }
            },
            "the source's agent to let the guest run again", null, Cancelled);
        await RunsAsync(Guest);
    }

    public async Task AssertSourceIsHeldAsync() =>
        Assert.Equal(ControlException.Held, (await Assert.ThrowsAsync<ControlException>(() => Guest.ResumeAsync(Cancelled))).Code);

    public static async Task AssertIsNotRunningAsync(TinyVmmClient guest) => Assert.NotEqual("running", (await guest.StatusAsync(Cancelled)).State);

    public static async Task AssertMachineCheckAsync(TinyVmmClient guest, int page)
    {
        var read = await guest.ReadAsync(FrameMath.AddressOf(FirstFrame + page), Cancelled);
        Assert.True(Evidence.IsMachineCheck(read, FirstFrame + page), Evidence.Describe(read));
    }

    /// <summary>These pages are machine checks, all others are as the guest wrote them, and the control plane knows exactly these.</summary>
    public async Task AssertExactlyArmedAsync(TinyVmmClient guest, params int[] pages)
    {
        var known = (await Fleet.Client.GetPagesAsync(Vm, Cancelled)).Items.Select(item => item.Frame).Order();
        Assert.Equal(pages.Order().Select(page => FirstFrame + page), known);
        for (var page = 0; page < DataPages; page++)
        {
            if (pages.Contains(page))
            {
                await AssertMachineCheckAsync(guest, page);
            }
            else
            {
                var address = FrameMath.AddressOf(FirstFrame + page);
                Assert.Equal($"0x{GuestArithmetic.PatternChecksum(address, 4096, Seed):x}", (await guest.ChecksumAsync(address, 4096, Cancelled)).Checksum);
            }
        }
    }

    public async Task AssertOwnerAsync(string host, long? epoch = null)
    {
        var vm = await Fleet.Client.GetVmAsync(Vm, null, Cancelled);
        Assert.Equal((host, epoch ?? vm.PlacementEpoch), (vm.Host, vm.PlacementEpoch));
    }

    public async ValueTask DisposeAsync()
    {
        try
        {
            await _watch.DisposeAsync();
        }
        finally
        {
            foreach (var guest in _guests)
            {
                await guest.DisposeAsync();
            }

            await Fleet.DisposeAsync();
        }
    }

    /// <summary>A VMM of its own, with empty RAM, takes the place of the one that has ended; nobody lets it run yet.</summary>
    public async Task StartVmmAsync(string host)
    {
        (Vmm, Guest) = await Fleet.StartVmmAsync(Vm, Memory, host, Cancelled, new VmmStart(Barrier: true, Vcpu: _vcpu, Backing: _backing));
        await WatchAsync(Vmm, Guest);
    }

    /// <summary>The agent lets the new guest run, and it writes its pattern.</summary>
    public async Task BootAsync()
    {
        await RunsAsync(Guest);
        await Guest.WriteAsync(Data, DataPages * 4096, Seed, Cancelled);
    }

    private async Task StartVmAsync(string host)
    {
        await Fleet.Client.PutVmAsync(Vm, new VmRequest(host, [new MemoryRegion("0x0", 64 << 20, _backing == "hugetlb" ? 2 << 20 : 4096)], new VmAttach(AttachKinds.Handoff)), Cancelled);
        await StartVmmAsync(host);
        await BootAsync();
    }

    private async Task WatchAsync(ChildProcess process, TinyVmmClient guest)
    {
        _guests.Add(guest);
        await _watch.AddAsync(Path.ChangeExtension(process.LogPath, ".control"), Cancelled);
    }

    private static Task RunsAsync(TinyVmmClient guest) =>
        LocalFleet.UntilAsync(async () => (await guest.StatusAsync(Cancelled)).State == "running", "the agent to let the guest run", null, Cancelled);

    // Null for a process that has ended.
    private async Task<StatusAnswer?> StatusOfSourceAsync() => Vmm.HasExited ? null : await Guest.StatusAsync(Cancelled);

    private async Task UntilAsync(Func<MigrationResource, bool> condition, string what, string migration = Migration)
    {
        MigrationResource? last = null;
        try
        {
            await LocalFleet.UntilAsync(
                async () => condition(last = await Fleet.Client.GetMigrationAsync(migration, Cancelled)), $"{migration}: {what}", null, Cancelled);
        }
        catch (TimeoutException exception)
        {
            throw new TimeoutException(
                $"{exception.Message}; it is {last?.State} with {string.Join(", ", last?.Reasons.Select(reason => reason.ToString()) ?? [])}", exception);
        }
    }
}
