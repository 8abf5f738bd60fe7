using Fleet.Contracts;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Demo.Running;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;

namespace Fleet.Demo.Story;

/// <summary>One host, end to end: a running guest is stopped at a poisoned page.</summary>
internal sealed class OneHost(LocalFleet fleet, Storyboard board, CancellationToken cancellationToken)
{
    private const string Host = "host-a";
    private const string Vm = "vm-1";
    private const uint Seed = 0x5eed;

    // 2 MiB of known data from 16 MiB on; the error strikes in the middle of it.
    private const ulong Data = 16 << 20;
    private const long DataBytes = 2 << 20;
    private const long Frame = (long)(Data >> 12) + 300;
    private static readonly ulong Struck = FrameMath.AddressOf(Frame);

    private ChildProcess _agent = null!;
    private TinyVmmClient _guest = null!;

    public async Task RunAsync()
    {
        await StartAsync();
        await WriteKnownDataAsync();
        await StrikeAsync();
        await TouchAsync();
        await KillAgentAsync();
        await NegativeControlAsync();
    }

    private async Task StartAsync()
    {
        board.Chapter("A fleet of one host");
        _agent = await board.DoAsync($"the agent of {Host} enrols and claims its host", () => fleet.StartAgentAsync(Host, cancellationToken));
        await board.DoAsync($"VM {Vm} is created on {Host}", () => fleet.Client.PutVmAsync(
            Vm, new VmRequest(Host, [new MemoryRegion("0x0", 64 << 20, 4096)], new VmAttach(AttachKinds.Handoff)), cancellationToken));
        _guest = (await board.DoAsync("its VMM starts, a process with a vCPU on /dev/kvm", () => fleet.StartVmmAsync(Vm, "64M", Host, cancellationToken))).Client;
        await board.DoAsync("the VMM hands its memory over to the agent", () => LocalFleet.UntilAsync(
            async () => (await _guest.StatusAsync(cancellationToken)).Attached, "the agent to accept the handoff", _agent, cancellationToken));
        var vm = await board.DoAsync("the agent confirms what is armed", () => fleet.Client.GetVmAsync(Vm, TimeSpan.FromSeconds(20), cancellationToken));
        board.Check("The control plane knows that the VM is enforced", vm.Enforcement is [{ State: EnforcementStates.Armed }],
            $"GET /v1/vms/{Vm}: enforcement {vm.Enforcement[0].State} on {vm.Enforcement[0].Host} at generation {vm.Enforcement[0].ArmedGeneration}");
    }

    private async Task WriteKnownDataAsync()
    {
        board.Chapter("The guest writes known data");
        await board.DoAsync("the guest fills 2 MiB with a pattern", () => _guest.WriteAsync(Data, DataBytes, Seed, cancellationToken));
        await CheckSumAsync("The guest reads back what it wrote", Data, DataBytes);
    }

    private async Task StrikeAsync()
    {
        board.Chapter($"A memory error strikes frame {Frame}");
        await _guest.MemoryErrorAsync(Struck, FrameMath.FrameShift, PageClasses.Srar, cancellationToken);
        PageList pages = null!;
        await board.DoAsync("VMM, agent, control plane: the report travels", () => LocalFleet.UntilAsync(
            async () => (pages = await fleet.Client.GetPagesAsync(Vm, cancellationToken)).Items.Count > 0, "the page to be recorded", fleet.Api, cancellationToken));
        board.Check("The poisoned page is recorded", pages.Items is [{ Frame: Frame, Shift: 12, FirstHost: Host }],
            $"GET /v1/vms/{Vm}/pages: frame {pages.Items[0].Frame}, class {pages.Items[0].Class}, source {pages.Items[0].Source}, first host {pages.Items[0].FirstHost}, generation {pages.Generation}");

        var vm = await board.DoAsync("control plane, agent, kernel: the page is zapped and marked", () => fleet.Client.GetVmAsync(Vm, TimeSpan.FromSeconds(20), cancellationToken));
        var page = (await fleet.Client.GetPagesAsync(Vm, cancellationToken)).Items[0];
        board.Check("The host confirmed it at this generation", vm.Enforcement is [{ State: EnforcementStates.Armed }] && vm.Enforcement[0].ArmedGeneration == pages.Generation && page.Hosts is [{ State: PageStates.Armed }],
            $"page state on {Host}: {page.Hosts[0].State}, armed generation {vm.Enforcement[0].ArmedGeneration}");
        var entry = Evidence.PageTableEntry(await _guest.StatusAsync(cancellationToken), Frame);
        board.Check("The kernel holds a poison marker in the VMM's page table", entry.IsPoisonMarker, $"/proc/PID/pagemap entry {entry}");
    }

    private async Task TouchAsync()
    {
        board.Chapter("The guest reads around it, then touches it");
        await CheckSumAsync("Everything below the frame is intact", Data, (long)(Struck - Data));
        await CheckSumAsync("Everything above the frame is intact", Struck + 4096, (long)(Data + DataBytes - Struck - 4096));

        var read = await _guest.ReadAsync(Struck + 0x40, cancellationToken);
        board.Check("A read ends in a machine check, never in data", Evidence.IsMachineCheck(read, Frame), Evidence.Describe(read));
        var store = await _guest.StoreAsync(Struck + 0x80, 1, cancellationToken);
        board.Check("A write ends in a machine check", Evidence.IsMachineCheck(store, Frame), Evidence.Describe(store));
        await CheckHitsAsync("Both accesses are recorded as hits, with frame and host", 2);
    }

    private async Task KillAgentAsync()
    {
        board.Chapter("kill -9 of the agent");
        await board.DoAsync($"the agent, process {_agent.Pid}, is killed", _agent.KillAsync);
        var read = await _guest.ReadAsync(Struck, cancellationToken);
        board.Check("With no agent the kernel enforces: machine check", Evidence.IsMachineCheck(read, Frame), Evidence.Describe(read));
        _agent = await board.DoAsync("a new agent takes the VMM over", () => fleet.StartAgentAsync(Host, cancellationToken));
        var vm = await board.DoAsync("it verifies every page again", () => fleet.Client.GetVmAsync(Vm, TimeSpan.FromSeconds(20), cancellationToken));
        board.Check("The new agent confirms the page", vm.Enforcement is [{ State: EnforcementStates.Armed }], $"enforcement {vm.Enforcement[0].State}, armed generation {vm.Enforcement[0].ArmedGeneration}");
        await CheckHitsAsync("The access while no agent ran is recorded too", 3);
    }

    private async Task NegativeControlAsync()
    {
        board.Chapter("Negative control: the same page merely zapped, no agent");
        var (process, guest) = await board.DoAsync("a VMM without an agent starts", () => fleet.StartVmmAsync("vm-control", "64M", null, cancellationToken));
        await using var _ = process;
        await using var __ = guest;
        await guest.WriteAsync(Data, DataBytes, Seed, cancellationToken);
        var before = await guest.ReadAsync(Struck, cancellationToken);
        board.Check("Its guest reads what it wrote", before.Value == Evidence.Hex(GuestArithmetic.Pattern(Struck, Seed)), Evidence.Describe(before));
        await guest.DiscardAsync(Struck, FrameMath.FrameBytes, cancellationToken);
        var after = await guest.ReadAsync(Struck, cancellationToken);
        var checks = (await guest.StatusAsync(cancellationToken)).MachineChecks;
        board.Check("Then it reads zeros and does not notice: the corruption that Fleet prevents", after is { Outcome: CommandAnswer.Data, Value: "0x0" } && checks == 0,
            $"{Evidence.Describe(after)}, machine checks {checks}");
    }

    private async Task CheckSumAsync(string claim, ulong address, long bytes)
    {
        var expected = Evidence.Hex(GuestArithmetic.PatternChecksum(address, (ulong)bytes, Seed));
        var answer = await _guest.ChecksumAsync(address, bytes, cancellationToken);
        board.Check(claim, answer.Checksum == expected, $"{Evidence.Describe(answer)} over {bytes} bytes, expected {expected}");
    }

    private async Task CheckHitsAsync(string claim, long accesses)
    {
        IReadOnlyList<HitResource> hits = [];
        await board.DoAsync("VMM, agent, control plane: the hit travels", async () =>
        {
            try
            {
                await LocalFleet.UntilAsync(
                    async () => (hits = (await fleet.Client.GetHitsAsync(Vm, cancellationToken)).Items).Sum(hit => hit.Count) >= accesses,
                    "the hits", _agent, cancellationToken);
            }
            catch (TimeoutException)
            {
                // The check below says what is there instead.
            }
        });
        board.Check(claim,
            hits.Sum(hit => hit.Count) == accesses && hits.All(hit => hit is { Frame: Frame, Host: Host, Evidence: HitEvidences.Vmm, Outcome: HitOutcomes.MceInjected }),
            $"GET /v1/hits: {string.Join("; ", hits.Select(hit => $"{hit.Count} × {hit.Access} of frame {hit.Frame} on {hit.Host}, {hit.Outcome}"))}");
    }
}
