using System.Threading.Channels;
using Fleet.Contracts.Handoff;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm.Running;

/// <summary>
/// Decides whether the guest may execute instructions. It may when nobody objects: the agent by its hold (only with a barrier,
/// latched from the start), an operator by a pause, a stream while it copies RAM out, and RAM that has not arrived. Everything is kept
/// here and not in a connection, so that no lost connection opens anything.
/// </summary>
public sealed class RunControl
{
    private readonly Lock _gate = new();
    private readonly List<ChannelWriter<VmmState>> _listeners = [];
    private readonly IVirtualCpu _vcpu;
    private Phase _phase;
    private bool _held;
    private bool _paused;
    private bool _streaming;
    private string? _streamTarget;
    private IReadOnlyList<HandoffFrames>? _undelivered;
    private readonly bool _unprotected;
    private long _obeyed;
    private VmmState _last;
    private volatile FrameRanges _skip = FrameRanges.Empty;

    /// <param name="vcpu">Paused, if there is a barrier.</param>
    /// <param name="unprotected">An incoming guest without a barrier: for negative controls.</param>
    public RunControl(IVirtualCpu vcpu, bool barrier, bool incoming, bool unprotected = false)
    {
        (_vcpu, HasBarrier, _unprotected) = (vcpu, !unprotected && (barrier || incoming), unprotected);
        (_held, _phase) = (HasBarrier, incoming ? Phase.Incoming : Phase.Ready);
        _last = StateNow();
    }

    private enum Phase
    {
        Ready,
        Incoming,
        Loaded,
    }

    public bool HasBarrier { get; }

    /// <summary>Frames that the agent wants to be declared undelivered, and never read.</summary>
    public FrameRanges Skip
    {
        get => _skip;
        set => _skip = value;
    }

    public VmmState Present
    {
        get
        {
            lock (_gate)
            {
                return StateNow();
            }
        }
    }

    /// <summary>Ends only by cancellation: tells what the vCPU does by itself.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            await _vcpu.WaitForChangeAsync(cancellationToken);
            lock (_gate)
            {
                Publish();
            }
        }
    }

    /// <summary>Every change of the state goes to the listener from now on.</summary>
    public void Listen(ChannelWriter<VmmState> listener)
    {
        lock (_gate)
        {
            // Numbers of commands belong to one connection.
            _obeyed = 0;
            _listeners.Add(listener);
        }
    }

    public void Unlisten(ChannelWriter<VmmState> listener)
    {
        lock (_gate)
        {
            _listeners.Remove(listener);
        }
    }

    /// <summary>Says the present state to one listener, changed or not.</summary>
    public void Answer(ChannelWriter<VmmState> listener)
    {
        lock (_gate)
        {
            Publish();
            listener.TryWrite(_last);
        }
    }

    /// <summary>The agent's <c>run</c>. Changes nothing without a barrier, or while RAM is not here; an operator's pause stands.</summary>
    /// <param name="sequence">Of the line; told with every state from now on.</param>
    public void Run(long sequence = 0)
    {
        lock (_gate)
        {
            _obeyed = sequence;
            if (_phase != Phase.Incoming)
            {
                (_held, _phase) = (false, Phase.Ready);
                Apply();
            }
        }
    }

    /// <summary>The agent's <c>hold</c>: latched when this returns; the task ends when the vCPU is verifiably out of the guest.</summary>
    /// <param name="sequence">Of the line; told with every state from now on.</param>
    public Task HoldAsync(long sequence = 0)
    {
        lock (_gate)
        {
            _obeyed = sequence;
            _held = HasBarrier;
            return Apply();
        }
    }

    /// <summary>An operator's pause; the task ends when the vCPU is verifiably out of the guest.</summary>
    public Task PauseAsync()
    {
        lock (_gate)
        {
            _paused = true;
            return Apply();
        }
    }

    /// <exception cref="ControlException">The agent's barrier is closed, or RAM is being streamed out.</exception>
    public void Resume()
    {
        lock (_gate)
        {
            RefuseWhileHeld();
            RefuseWhileStreaming();
            _paused = false;
            Apply();
        }
    }

    /// <exception cref="ControlException">The guest may not do anything now; the code says why.</exception>
    public void RefuseUnlessRunning()
    {
        lock (_gate)
        {
            RefuseIfFailed();
            RefuseWhileHeld();
            if (_vcpu.State != VirtualCpuState.Running || _paused || _streaming)
            {
                throw new ControlException(ControlException.Paused, "the guest is paused");
            }
        }
    }

    /// <exception cref="ControlException">RAM must not change now, except by the stream.</exception>
    public void RefuseWhileRamMoves()
    {
        lock (_gate)
        {
            RefuseWhileStreaming();
            if (_phase != Phase.Ready)
            {
                throw new ControlException(ControlException.Held, "the guest's RAM comes from a stream, and the agent has not let it run yet");
            }
        }
    }

    /// <summary>
    /// Pauses the guest for a stream; nobody can have it run before <see cref="EndStream"/>. The pause then stands, as an operator's.
    /// </summary>
    /// <exception cref="ControlException">The guest has failed, never had its RAM, or is being streamed already.</exception>
    public Task BeginStreamAsync()
    {
        lock (_gate)
        {
            RefuseIfFailed();
            RefuseWhileRamMoves();
            (_streaming, _paused, _streamTarget) = (true, true, null);
            return Apply();
        }
    }

    /// <param name="target">Instance of the VMM that has confirmed all of it; null when the stream failed.</param>
    public void EndStream(string? target)
    {
        lock (_gate)
        {
            (_streaming, _streamTarget) = (false, _vcpu.State == VirtualCpuState.Paused ? target : null);
            Publish();
        }
    }

    /// <summary>All RAM has arrived.</summary>
    /// <param name="undelivered">Frames that the source could not deliver.</param>
    public void EndLoad(FrameRanges undelivered)
    {
        lock (_gate)
        {
            (_phase, _undelivered) = (Phase.Loaded, undelivered.Ranges);
            if (_unprotected)
            {
                // As VMMs do today: whoever is the operator resumes the guest, with holes where pages could not be read.
                (_phase, _paused) = (Phase.Ready, true);
            }

            Publish();
        }
    }

    private Task Apply()
    {
        Task paused;
        if (_held || _paused || _streaming || _phase != Phase.Ready)
        {
            paused = _vcpu.PauseAsync();
        }
        else
        {
            // Before the first instruction: what was streamed is old from then on.
            _streamTarget = null;
            _vcpu.Resume();
            paused = Task.CompletedTask;
        }

        Publish();
        return paused;
    }

    private void Publish()
    {
        var now = StateNow();
        if (now == _last)
        {
            return;
        }

        _last = now;
        foreach (var listener in _listeners)
        {
            listener.TryWrite(now);
        }
    }

    private VmmState StateNow()
    {
        var state = (_vcpu.State, _phase) switch
        {
            (VirtualCpuState.Failed, _) => VmmStates.Failed,
            (_, Phase.Incoming) => VmmStates.Incoming,
            (_, Phase.Loaded) => VmmStates.Loaded,
            (VirtualCpuState.Paused, _) => VmmStates.Held,
            _ => VmmStates.Running,
        };
        return new VmmState(VmmState.StateType, state, _streamTarget, state == VmmStates.Loaded ? _undelivered : null, _obeyed);
    }

    /// <exception cref="ControlException">The guest has stopped for good.</exception>
    public void RefuseIfFailed()
    {
        if (_vcpu.State == VirtualCpuState.Failed)
        {
            throw new ControlException(ControlException.Failed, _vcpu.Failure ?? "the guest has stopped");
        }
    }

    private void RefuseWhileHeld()
    {
        if (_held)
        {
            throw new ControlException(ControlException.Held, "the agent holds the guest: only its permission opens the barrier");
        }
    }

    private void RefuseWhileStreaming()
    {
        if (_streaming)
        {
            throw new ControlException(ControlException.Migrating, "the guest's RAM is being streamed out");
        }
    }
}
