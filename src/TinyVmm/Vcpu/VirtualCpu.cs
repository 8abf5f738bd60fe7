using System.Diagnostics.CodeAnalysis;
using System.Threading.Channels;

namespace Fleet.TinyVmm.Vcpu;

/// <summary>What every vCPU has in common: its thread, parked or in the guest, the command under way, and its failure.</summary>
public abstract class VirtualCpu : IVirtualCpu, IDisposable
{
    private readonly object _gate = new();
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Channel<bool> _changes = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private TaskCompletionSource _parkedSignal = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private CommandRun? _command;
    private bool _pauseRequested;
    private bool _stopRequested;
    private bool _parked;
    private string? _failure;
    private long _machineChecks;

    /// <param name="paused">The guest executes nothing before <see cref="Resume"/>.</param>
    protected VirtualCpu(bool paused)
    {
        if (paused)
        {
            // Its thread has not begun: it is out of the guest.
            _pauseRequested = _parked = true;
            _parkedSignal.SetResult();
        }
    }

    public abstract string Kind { get; }

    public VirtualCpuState State
    {
        get
        {
            lock (_gate)
            {
                return _failure is not null ? VirtualCpuState.Failed
                    : _parked && _pauseRequested ? VirtualCpuState.Paused
                    : VirtualCpuState.Running;
            }
        }
    }

    public string? Failure
    {
        get
        {
            lock (_gate)
            {
                return _failure;
            }
        }
    }

    public long MachineChecks => Interlocked.Read(ref _machineChecks);

    private protected CommandRun Current => _command!;

    public Task<GuestOutcome> ExecuteAsync(GuestCommand command)
    {
        lock (_gate)
        {
            if (_failure is not null || _stopRequested)
            {
                return Task.FromResult<GuestOutcome>(new GuestOutcome.Failed(_failure ?? "the vCPU has stopped"));
            }

            if (_command is not null)
            {
                throw new InvalidOperationException("a command is under way");
            }

            _command = new CommandRun(command);
            Monitor.PulseAll(_gate);
            return _command.Completion;
        }
    }

    public Task PauseAsync()
    {
        lock (_gate)
        {
            _pauseRequested = true;
            Wake();
            return _parkedSignal.Task;
        }
    }

    public void Resume()
    {
        lock (_gate)
        {
            _pauseRequested = false;
            if (_failure is null && _parkedSignal.Task.IsCompleted)
            {
                _parkedSignal = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            }

            Monitor.PulseAll(_gate);
        }
    }

    public CarriedCommand? Save()
    {
        lock (_gate)
        {
            return _parked && _pauseRequested && _failure is null
                ? _command?.Carry()
                : throw new InvalidOperationException("the vCPU is not paused");
        }
    }

    public Task<GuestOutcome> Load(CarriedCommand carried)
    {
        lock (_gate)
        {
            if (!_parked || !_pauseRequested || _failure is not null || _command is not null)
            {
                throw new InvalidOperationException("the vCPU is not paused, or has a command already");
            }

            _command = new CommandRun(carried);
            return _command.Completion;
        }
    }

    public Task StopAsync()
    {
        lock (_gate)
        {
            _stopRequested = true;
            Wake();
            return _ended.Task;
        }
    }

    public async ValueTask WaitForChangeAsync(CancellationToken cancellationToken) => await _changes.Reader.ReadAsync(cancellationToken);

    /// <summary>Frees what the vCPU holds; only after the task of <see cref="StopAsync"/> has ended.</summary>
    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    protected virtual void Dispose(bool disposing)
    {
    }

    /// <summary>Lets the guest do something; false when it must not go on. On the vCPU's own thread.</summary>
    protected abstract bool Step();

    /// <summary>At the start of the vCPU's own thread.</summary>
    protected virtual void OnThreadStarted()
    {
    }

    /// <summary>Before the end of the vCPU's own thread.</summary>
    protected virtual void OnThreadEnding()
    {
    }

    /// <summary>Has the thread leave the guest soon, if it is there. Called from other threads, in turn.</summary>
    protected virtual void Interrupt()
    {
    }

    private protected void Start() => new Thread(ThreadMain) { IsBackground = true, Name = "vcpu 0" }.Start();

    private protected void CountMachineCheck() => Interlocked.Increment(ref _machineChecks);

    /// <summary>Waits while a pause is asked for; false when the thread is to end.</summary>
    private protected bool ParkWhileAsked()
    {
        lock (_gate)
        {
            while (_pauseRequested && !_stopRequested)
            {
                _parked = true;
                _parkedSignal.TrySetResult();
                _changes.Writer.TryWrite(true);
                Monitor.Wait(_gate);
            }

            _parked = false;
            return !_stopRequested;
        }
    }

    /// <summary>Waits for a command; null when the thread is to end.</summary>
    private protected CommandRun? WaitForCommand()
    {
        lock (_gate)
        {
            while (ParkWhileAsked())
            {
                if (_command is not null)
                {
                    return _command;
                }

                Monitor.Wait(_gate);
            }

            return null;
        }
    }

    private protected void CompleteCommand(GuestOutcome? outcome)
    {
        CommandRun? command;
        lock (_gate)
        {
            (command, _command) = (_command, null);
        }

        if (outcome is null)
        {
            command?.Complete();
        }
        else
        {
            command?.Complete(outcome);
        }
    }

    /// <summary>Stops the guest for good. Always false, so that callers can return it.</summary>
    private protected bool Fail(string reason)
    {
        lock (_gate)
        {
            _failure ??= reason;

            // A failed vCPU is out of the guest: who waits for a pause need not wait on.
            _parkedSignal.TrySetResult();
            _changes.Writer.TryWrite(true);
        }

        return false;
    }

    [SuppressMessage("Design", "CA1031", Justification = "Whatever happens here stops the guest, and never the process without a word.")]
    private void ThreadMain()
    {
        try
        {
            OnThreadStarted();
            while (ParkWhileAsked() && Step())
            {
            }
        }
        catch (Exception exception)
        {
            Fail(exception.Message);
        }
        finally
        {
            lock (_gate)
            {
                OnThreadEnding();
                _parkedSignal.TrySetResult();
                _command?.Complete(new GuestOutcome.Failed(_failure ?? "the vCPU has stopped"));
                _command = null;
            }

            _ended.TrySetResult();
        }
    }

    // The gate is held: the thread is not gone while it is interrupted.
    private void Wake()
    {
        Monitor.PulseAll(_gate);
        Interrupt();
    }
}
