using Fleet.Contracts;
using Fleet.Contracts.Hits;
using Fleet.Demo.Running;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;

namespace Fleet.Demo.Story;

/// <summary>What the chapters share: the fleet, where the guest is now, and the questions that are asked of it again and again.</summary>
/// <param name="Policy">The agents': <c>marker</c> or <c>trap</c>.</param>
/// <param name="Vcpu">What runs the guest: <c>kvm</c> or <c>software</c>.</param>
internal sealed record Scene(LocalFleet Fleet, Storyboard Board, string Policy, string Vcpu, CancellationToken CancellationToken)
{
    public const string HostA = "host-a";
    public const string HostB = "host-b";
    public const string Vm = "vm-1";
    public const string Memory = "4M";
    public const long MemoryBytes = 4 << 20;
    public const uint Seed = 0x5eed;

    // Known data from 1 MiB to the end of RAM; the error strikes in the middle of it.
    public const ulong Data = 1 << 20;
    public const long DataBytes = MemoryBytes - (long)Data;
    public const long Frame = 600;
    public static readonly ulong Struck = FrameMath.AddressOf(Frame);

    /// <summary>The agent of the host that the guest is on.</summary>
    public ChildProcess Agent { get; set; } = null!;

    /// <summary>The VMM that the guest is in.</summary>
    public ChildProcess Vmm { get; set; } = null!;

    public TinyVmmClient Guest { get; set; } = null!;

    public string Host { get; set; } = HostA;

    public async Task CheckIntactAsync()
    {
        await CheckSumAsync("Everything below the frame is intact", Data, (long)(Struck - Data));
        await CheckSumAsync("Everything above the frame is intact", Struck + FrameMath.FrameBytes, (long)(Data + DataBytes - Struck) - FrameMath.FrameBytes);
    }

    public async Task CheckSumAsync(string claim, ulong address, long bytes)
    {
        var expected = Evidence.Hex(GuestArithmetic.PatternChecksum(address, (ulong)bytes, Seed));
        var answer = await Guest.ChecksumAsync(address, bytes, CancellationToken);
        Board.Check(claim, answer.Checksum == expected, $"{Evidence.Describe(answer)} over {bytes} bytes, expected {expected}");
    }

    public async Task CheckReadAsync(string claim)
    {
        var read = await Guest.ReadAsync(Struck + 0x40, CancellationToken);
        Board.Check(claim, Evidence.IsMachineCheck(read, Frame), Evidence.Describe(read));
    }

    /// <param name="accesses">All of them so far on the present host.</param>
    /// <param name="epoch">Placement epoch that each must carry.</param>
    public async Task CheckHitsAsync(string claim, long accesses, long epoch)
    {
        IReadOnlyList<HitResource> hits = [];
        await Board.DoAsync("VMM, agent, control plane: the hit travels", async () =>
        {
            try
            {
                await LocalFleet.UntilAsync(
                    async () => (hits = [.. (await Fleet.Client.GetHitsAsync(Vm, CancellationToken)).Items.Where(hit => hit.Host == Host)]).Sum(hit => hit.Count) >= accesses,
                    "the hits", Agent, CancellationToken);
            }
            catch (TimeoutException)
            {
                // The check below says what is there instead.
            }
        });
        Board.Check(claim,
            hits.Sum(hit => hit.Count) == accesses
                // Where KVM takes the access as a page fault, its tracepoint saw it too, and knows more of it than the VMM.
                && hits.All(hit => hit is { Frame: Frame, Evidence: HitEvidences.Vmm or HitEvidences.KvmPageFault, Outcome: HitOutcomes.MceInjected }
                    && hit.PlacementEpoch == epoch),
            $"GET /v1/hits: {string.Join("; ", hits.Select(hit => $"{hit.Count} × {hit.Access} of frame {hit.Frame} on {hit.Host} at epoch {hit.PlacementEpoch}, {hit.Outcome}, seen by {hit.Evidence}"))}");
    }
}
