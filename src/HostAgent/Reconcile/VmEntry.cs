using Fleet.Contracts.Agents;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;

namespace Fleet.HostAgent.Reconcile;

/// <summary>All that the agent knows of one VM. Changed only under <see cref="Gate"/>.</summary>
public sealed class VmEntry(string vm)
{
    private readonly List<TaskCompletionSource> _waiting = [];
    private volatile VmStatus? _status;
    private volatile string? _notAttached;
    private DesiredVm? _desired;
    private long _statusAt;

    public string Vm { get; } = vm;

    /// <summary>Held while desired state, attachment or kernel state of this VM is changed.</summary>
    public SemaphoreSlim Gate { get; } = new(1, 1);

    public DesiredVm? Desired
    {
        get => _desired;
        set
        {
            // After a removal for its numbers alone.
            Newest = value ?? (_desired is null ? Newest : _desired with { Pages = [] });
            (_desired, PlacementEpoch) = (value, value?.PlacementEpoch ?? PlacementEpoch);
        }
    }

    /// <summary>
    /// The last view that was taken in, without its pages once the VM concerns this host no more: a view from before it may still be on its
    /// way, and would disarm what came later (I3).
    /// </summary>
    public DesiredVm? Newest { get; private set; }

    /// <summary>The newest that was known, also of a VM that no longer concerns this host: what still happens in its VMM is told under it.</summary>
    public long? PlacementEpoch { get; private set; }

    public Attachment? Attachment { get; set; }

    /// <summary>Why no VMM is attached, a stable code; null when none has come yet.</summary>
    public string? NotAttached
    {
        get => _notAttached;
        set => _notAttached = value;
    }

    /// <summary>Frames that the kernel confirmed the last time, in the present attachment.</summary>
    public FrameSet Confirmed { get; set; } = FrameSet.Empty;

    /// <summary>Last status, as heartbeats tell it; read without the gate.</summary>
    public VmStatus? Status
    {
        get => _status;
        set => _status = value;
    }

    /// <summary>When the kernel was last asked for <see cref="Status"/>, as <see cref="TimeProvider.GetTimestamp"/>.</summary>
    public long StatusAt
    {
        get => Interlocked.Read(ref _statusAt);
        set => Interlocked.Exchange(ref _statusAt, value);
    }

    /// <summary>Completes when the attachment that is there now is armed whole; call and complete under <see cref="Gate"/>.</summary>
    public Task WhenArmedAsync()
    {
        var source = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _waiting.Add(source);
        return source.Task;
    }

    public void CompleteArmed()
    {
        _waiting.ForEach(source => source.TrySetResult());
        _waiting.Clear();
    }

    public void CancelWaiting()
    {
        _waiting.ForEach(source => source.TrySetCanceled());
        _waiting.Clear();
    }
}
