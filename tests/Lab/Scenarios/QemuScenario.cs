using System.Globalization;
using Fleet.Contracts;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Lab.Tests.Running;

namespace Fleet.Lab.Tests.Scenarios;

/// <summary>
/// (h) Stock QEMU with a Linux guest. The guest's programs own the poisoned pages: the guest's kernel handles the machine check, and one program
/// at most pays for it.
/// </summary>
[Collection("lab")]
[Trait("Invariant", "I1")]
public sealed class QemuScenario(LabWorld world)
{
    private const string Vm = "vm-q";
    private const string Careful = "careful";
    private const string Careless = "careless";

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact(Timeout = 900_000)]
    public async Task Touch_ByAProgramOfALinuxGuest_IsItsSigbusAndOneHitAndOutlivesAReset()
    {
        world.Transcript.Chapter("(h) Stock QEMU with a Linux guest");
        await using var fleet = await LabFleet.StartAsync(world);
        var qemu = await StartAsync(fleet, user: false);
        var page = await qemu.OwnAsync(Careful, "handler");
        var other = await qemu.OwnAsync(Careless, "plain");
        world.Transcript.Tell($"two programs of the guest own a page each: {Careful} 0x{page:x}, with a handler for SIGBUS, and {Careless} 0x{other:x}");
        await ReadsItsDataAsync(qemu, Careful);
        await ReadsItsDataAsync(qemu, Careless);
        await ArmAsync(fleet, qemu, page, other);

        await HostKernel.WatchAsync(world.Host1, page);
        await SigbusAsync(qemu, Careful, page);
        await EverybodySawItAsync(fleet, qemu, page);

        world.Transcript.Tell("a second touch:");
        await SigbusAsync(qemu, Careful, page: null);

        var ended = await qemu.AskAsync($"touch {Careless}", $"guest: {Careless} ended");
        Assert.Contains($"guest: {Careless} ended by signal 7", ended);
        Assert.DoesNotContain(ended, line => line.Contains("reads", StringComparison.Ordinal));
        await qemu.AskAsync("alive", "guest: alive");
        world.Transcript.Tell($"{Careless} touches its page, and ends by SIGBUS; the guest lives on");
        await HitAsync(fleet, qemu, other);
        Assert.Equal(1, (await HitsAsync(fleet, page)).Sum(hit => hit.Count));

        await ResetAsync(fleet, qemu, page, other);
    }

    /// <summary>QEMU without root's rights has a userfaultfd for accesses of its own only; the marker stops KVM's as well.</summary>
    [Fact(Timeout = 600_000)]
    public async Task Touch_QemuIsNotRoot_IsTheProgramsSigbusAndOneHit()
    {
        world.Transcript.Chapter("(h) The same with a QEMU that is not root");
        await using var fleet = await LabFleet.StartAsync(world);
        var qemu = await StartAsync(fleet, user: true);
        Assert.Equal("1000", await world.Host1.Shell.RunAsync($"stat -c %u /proc/{qemu.Process.Pid}", Cancelled));
        var page = await qemu.OwnAsync(Careful, "handler");
        await ReadsItsDataAsync(qemu, Careful);
        await ArmAsync(fleet, qemu, page);

        await HostKernel.WatchAsync(world.Host1, page);
        await SigbusAsync(qemu, Careful, page);
        await EverybodySawItAsync(fleet, qemu, page);
    }

    private async Task<LabQemu> StartAsync(LabFleet fleet, bool user)
    {
        var qemu = await LabQemu.StartAsync(fleet, world.Host1, Vm, user);
        world.Transcript.Tell($"{(await world.Host1.Shell.RunAsync("qemu-system-x86_64 --version | head -n 1", Cancelled)).Trim()}: its guest has booted");
        await fleet.Client.PutVmAsync(
            Vm, new VmRequest(world.Host1.Name.Text, [new MemoryRegion("0x0", LabQemu.Bytes, 4096)], new VmAttach(AttachKinds.Qemu, QmpSocket: qemu.AgentSocket)), Cancelled);
        return qemu;
    }

    /// <summary>The control: as long as nothing is poisoned.</summary>
    private async Task ReadsItsDataAsync(LabQemu qemu, string program)
    {
        var lines = await qemu.AskAsync($"touch {program}", $"guest: {program} goes on");
        Assert.Contains($"guest: {program} reads {program}-page", lines);
        world.Transcript.Tell($"nothing is poisoned yet, and {program} reads its data");
    }

    private async Task ArmAsync(LabFleet fleet, LabQemu qemu, params ulong[] pages)
    {
        await fleet.Client.AddPagesAsync(
            Vm, new AddPagesRequest([.. pages.Select(page => new PageReport(FrameOf(page), 12, PageClasses.Srar, PageSources.Operator))], "lab"), Cancelled);
        await Waiting.UntilAsync(
            async () => await fleet.Client.GetVmAsync(Vm, null, Cancelled) is var vm
                && vm.Enforcement.Any(item => item.Host == vm.Host && item.State == EnforcementStates.Armed && item.ArmedGeneration == vm.Generation),
            "the agent to have the pages armed", Cancelled, () => StateAsync(fleet, qemu));
        foreach (var page in pages)
        {
            var entry = await qemu.PageTableEntryAsync(page);
            Assert.True(entry.IsPoisonMarker, $"0x{page:x}: page table entry {entry}");
        }

        world.Transcript.Tell("an operator reports the pages; the agent attaches by QMP and arms them: the kernel has poison markers in QEMU's page table");
    }

    /// <param name="page">Where the guest's kernel names the error; null when it knows the page as failed already, and stops the access itself.</param>
    private async Task SigbusAsync(LabQemu qemu, string program, ulong? page)
    {
        var lines = await qemu.AskAsync($"touch {program}", $"guest: {program} goes on");
        world.Transcript.Quote(string.Join('\n', lines));
        Assert.Contains("guest: signal 7 si_code 4 at offset 0 of the page", lines);
        Assert.Contains($"guest: {program} goes on, and reads {program}-next after it", lines);
        Assert.DoesNotContain(lines, line => line.StartsWith($"guest: {program} reads", StringComparison.Ordinal));
        if (page is { } address)
        {
            Assert.Contains(lines, line => line.Contains($"Uncorrected hardware memory error in user-access at {address:x}", StringComparison.Ordinal));
            Assert.Contains(lines, line => line.Contains($"Memory failure: 0x{FrameOf(address):x}: ", StringComparison.Ordinal));
        }
    }

    /// <summary>KVM's tracepoint, the signal to the vCPU's thread, QEMU's event and log, and the hit speak of one access to that page.</summary>
    private async Task EverybodySawItAsync(LabFleet fleet, LabQemu qemu, ulong page)
    {
        var hit = await HitAsync(fleet, qemu, page);
        Assert.Equal((1, HitAccesses.Read, 0, HitOutcomes.MceInjected), (hit.Count, hit.Access, hit.Vcpu, hit.Outcome));
        Assert.Equal(($"0x{page:x}", world.Host1.Name.Text), (hit.GuestPhysicalAddress, hit.Host));
        Assert.Single(await HitsAsync(fleet, page));

        var faults = await HostKernel.WatchedAsync(world.Host1, "kvm_page_fault");
        var signals = await HostKernel.WatchedAsync(world.Host1, "signal_generate");
        await HostKernel.EndWatchAsync(world.Host1);
        Assert.Contains($"address 0x{page:x16}", Assert.Single(faults), StringComparison.Ordinal);
        Assert.Contains(signals, line => line.Contains("sig=7", StringComparison.Ordinal) && line.Contains("code=4", StringComparison.Ordinal));

        var told = Assert.Single(await qemu.EventsAsync("MEMORY_FAILURE")).GetProperty("data");
        Assert.Equal(("guest", "inject"), (told.GetProperty("recipient").GetString(), told.GetProperty("action").GetString()));
        var line = Assert.Single(await qemu.FailureLinesAsync());
        Assert.Contains($"GUEST addr 0x{page:x} of type BUS_MCEERR_AR injected", line, StringComparison.Ordinal);
        world.Transcript.Tell("the host's own trace of that moment, QEMU's event and QEMU's log:");
        world.Transcript.Quote(string.Join('\n', [.. faults, .. signals, $"MEMORY_FAILURE {told}", line]));
    }

    /// <summary>QEMU maps the pages that failed anew when the guest resets. They are armed again, and nobody reads them.</summary>
    private async Task ResetAsync(LabFleet fleet, LabQemu qemu, params ulong[] pages)
    {
        var lost = await LostAsync(fleet);
        using (var asked = await world.Host1.Shell.ConnectAsync($"{fleet.QemuFolder}/console", Cancelled))
        {
            await asked.SendAsync("reboot\n"u8.ToArray(), Cancelled);
            await qemu.BootedAsync(times: 2);
        }

        Assert.NotEmpty(await qemu.EventsAsync("RESET"));
        await qemu.AskAsync("alive", "guest: alive");
        foreach (var page in pages)
        {
            await Waiting.UntilAsync(
                async () => (await qemu.PageTableEntryAsync(page)).IsPoisonMarker, $"the marker of 0x{page:x} to be set again", Cancelled, () => StateAsync(fleet, qemu));
        }

        Assert.True(await LostAsync(fleet) > lost, "QEMU has not mapped the pages anew, so that nothing was to be armed again");
        world.Transcript.Tell("the guest boots again; QEMU has mapped the pages anew, and the agent has armed them again");

        // Frames without a page in them yet read as zeros, which is data too.
        Assert.Contains("0x", await qemu.MonitorAsync($"xp /1xb 0x{pages[0] - 4096:x}"), StringComparison.Ordinal);
        Assert.Null(await qemu.MonitorAsync($"xp /1xb 0x{pages[0]:x}"));
        world.Transcript.Tell("QEMU's monitor reads the page before, and not that page: the access ends QEMU");
    }

    private async Task<int> LostAsync(LabFleet fleet) => int.Parse(
        (await world.Host1.Shell.TryAsync($"grep -c marker-lost {fleet.Agents[world.Host1].LogPath}", Cancelled)).Output.Trim(), CultureInfo.InvariantCulture);

    private async Task<HitResource> HitAsync(LabFleet fleet, LabQemu qemu, ulong page)
    {
        await Waiting.UntilAsync(
            async () => (await HitsAsync(fleet, page)).Any(hit => hit.Evidence == HitEvidences.KvmPageFault), $"the hit of 0x{page:x}", Cancelled, () => StateAsync(fleet, qemu));
        var found = (await HitsAsync(fleet, page))[0];
        world.Transcript.Tell($"hit: frame {found.Frame} ({found.GuestPhysicalAddress}) on {found.Host}, {found.Access} by vCPU {found.Vcpu}, "
            + $"evidence {found.Evidence}, outcome {found.Outcome}, count {found.Count}");
        return found;
    }

    private static async Task<HitResource[]> HitsAsync(LabFleet fleet, ulong page) =>
        [.. (await fleet.Client.GetHitsAsync(Vm, Cancelled)).Items.Where(hit => hit.Frame == FrameOf(page))];

    private static long FrameOf(ulong page) => FrameMath.FrameOf(page);

    private async Task<string> StateAsync(LabFleet fleet, LabQemu qemu) =>
        $"{await fleet.Agents[world.Host1].TailAsync(Cancelled)}\n{await qemu.Process.TailAsync(Cancelled)}\n{string.Join('\n', await qemu.ConsoleAsync())}";
}
