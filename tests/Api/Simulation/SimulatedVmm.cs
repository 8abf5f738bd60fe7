using Fleet.Contracts.Handoff;
using Fleet.HostAgent.Gate;
using Fleet.Linux.Processes;

namespace Fleet.Api.Tests.Simulation;

/// <summary>
/// A VMM process with its guest's RAM and what the kernel traps of it. It runs its guest only when its agent says so, and its journal is
/// what the agent keeps of it on disk.
/// </summary>
internal sealed class SimulatedVmm(ProcessIdentity identity, long memoryInstance, string? incomingFor)
{
    public const int Frames = 4;

    public ProcessIdentity Identity { get; } = identity;

    public string Instance { get; } = Contracts.Agents.VmmInstanceText.Of(identity.BootId, identity.Pid, identity.StartTime);

    public long MemoryInstance { get; } = memoryInstance;

    public string? IncomingFor { get; set; } = incomingFor;

    public bool IsAlive { get; set; } = true;

    public string State { get; private set; } = incomingFor is null ? VmmStates.Held : VmmStates.Incoming;

    public bool IsRunning => IsAlive && State == VmmStates.Running;

    /// <summary>Where its stream ended with no instruction run since.</summary>
    public string? StreamTarget { get; private set; }

    /// <summary>What a read returns of each frame, by version; 0 are the zeros of a hole.</summary>
    public long[] Ram { get; } = new long[Frames];

    /// <summary>Frames with a marker of the agent's.</summary>
    public SortedSet<long> Armed { get; } = [];

    /// <summary>Frames on bad DIMMs.</summary>
    public SortedSet<long> Broken { get; } = [];

    /// <summary>Memory errors that the agent has not stored yet.</summary>
    public List<long> Events { get; } = [];

    /// <summary>Journal: what may be armed.</summary>
    public SortedSet<long> Trapped { get; } = [];

    /// <summary>Journal: holes that the stream left.</summary>
    public SortedSet<long> Undelivered { get; } = [];

    /// <summary>Journal: reported, and not known to be in the set.</summary>
    public SortedSet<long> Reported { get; } = [];

    /// <summary>An access of it ends in a machine check.</summary>
    public bool IsMarked(long frame) => Armed.Contains(frame) || Broken.Contains(frame);

    public IEnumerable<long> Marked => Armed.Union(Broken);

    public void Hold()
    {
        if (State == VmmStates.Running)
        {
            State = VmmStates.Held;
        }
    }

    public void Run()
    {
        if (State is VmmStates.Held or VmmStates.Loaded)
        {
            (State, StreamTarget) = (VmmStates.Running, null);
        }
    }

    public void Arm(long frame)
    {
        Armed.Add(frame);
        Ram[frame] = 0;
    }

    public void Break(long frame)
    {
        Broken.Add(frame);
        Ram[frame] = 0;
    }

    /// <summary>The stream: what is readable arrives, what is not is declared. A VMM that streamed while its guest ran attests nothing.</summary>
    public void StreamTo(SimulatedVmm target, IEnumerable<long> skipped)
    {
        target.Load(Save(skipped));
        StreamTarget = IsRunning ? null : target.Instance;
    }

    public SavedRam Save(IEnumerable<long> skipped)
    {
        SortedSet<long> holes = [.. Marked.Concat(skipped)];
        return new SavedRam(MemoryInstance, [.. Ram.Select((version, frame) => holes.Contains(frame) ? 0 : version)], holes);
    }

    public void Load(SavedRam image)
    {
        for (var frame = 0; frame < Frames; frame++)
        {
            Ram[frame] = image.Ram[frame];
        }

        Undelivered.UnionWith(image.Holes);
        State = VmmStates.Loaded;
    }

    public VmmView View(bool isLatched) =>
        new(Identity, MemoryInstance, IncomingFor, HasBarrier: true, State, isLatched, StreamTarget, MayHaveRun: false, EventsStored: Events.Count == 0);
}

/// <summary>RAM on its way: in a stream or in a file.</summary>
internal sealed record SavedRam(long MemoryInstance, long[] Ram, SortedSet<long> Holes);
