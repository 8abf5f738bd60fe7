namespace Fleet.Api.Tests.Simulation;

/// <summary>What the guest wrote last, in each life of its memory: the ground on which it is told what it may read (IT).</summary>
internal sealed class SimulatedGuest
{
    private readonly Dictionary<long, long?[]> _written = [];
    private long _version;

    /// <summary>It runs for the first time in this life of its memory: it writes every frame.</summary>
    public void Boot(SimulatedVmm vmm)
    {
        if (!_written.ContainsKey(vmm.MemoryInstance))
        {
            _written[vmm.MemoryInstance] = new long?[SimulatedVmm.Frames];
            for (var frame = 0; frame < SimulatedVmm.Frames; frame++)
            {
                Write(vmm, frame);
            }
        }
    }

    public void Write(SimulatedVmm vmm, long frame)
    {
        if (!vmm.IsMarked(frame))
        {
            _written[vmm.MemoryInstance][frame] = vmm.Ram[frame] = ++_version;
        }
    }

    /// <summary>An operator cleared the page: what is in it until the next write is nobody's promise.</summary>
    public void Forget(long memoryInstance, long frame)
    {
        if (_written.TryGetValue(memoryInstance, out var written))
        {
            written[frame] = null;
        }
    }

    public bool HasRun(long memoryInstance) => _written.ContainsKey(memoryInstance);

    /// <summary>The frames that would read something else than what was written last.</summary>
    public IEnumerable<long> Wrong(long memoryInstance, long[] ram, Predicate<long> isTrapped)
    {
        var written = _written.GetValueOrDefault(memoryInstance);
        for (var frame = 0; frame < SimulatedVmm.Frames; frame++)
        {
            if (!isTrapped(frame) && written?[frame] is { } version && ram[frame] != version)
            {
                yield return frame;
            }
        }
    }

    public bool IsCurrent(SavedRam image) => !Wrong(image.MemoryInstance, image.Ram, image.Holes.Contains).Any();
}
