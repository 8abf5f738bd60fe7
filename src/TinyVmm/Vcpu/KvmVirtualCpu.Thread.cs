using System.Diagnostics.CodeAnalysis;
using Fleet.Linux;
using Fleet.Linux.Kvm;

namespace Fleet.TinyVmm.Vcpu;

/// <summary>The vCPU's thread: into the guest, out of it, parked in between.</summary>
public sealed partial class KvmVirtualCpu
{
    private static readonly ulong OwnSignals = ThreadSignals.Bit(ThreadSignals.SIGBUS) | ThreadSignals.Bit(KickSignal);

    [SuppressMessage("Design", "CA1031", Justification = "Whatever happens here stops the guest, and never the process without a word.")]
    private void ThreadMain()
    {
        try
        {
            ThreadSignals.Block(OwnSignals);
            lock (_gate)
            {
                _thread = ThreadSignals.CurrentThread;
            }

            while (ParkWhileAsked())
            {
                if (_vcpu.Run() ? !HandleExit() : !TakeSignals())
                {
                    break;
                }
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
                _thread = 0;
                _parkedSignal.TrySetResult();
                _command?.Complete(new GuestOutcome.Failed(_failure ?? "the vCPU has stopped"));
                _command = null;
            }

            _ended.TrySetResult();
        }
    }

    /// <summary>Waits while a pause is asked for; false when the thread is to end.</summary>
    private bool ParkWhileAsked()
    {
        lock (_gate)
        {
            while (_pauseRequested && !_stopRequested)
            {
                _parked = true;
                _parkedSignal.TrySetResult();
                Monitor.Wait(_gate);
            }

            _parked = false;
            return !_stopRequested;
        }
    }

    /// <summary>Waits for a command; null when the thread is to end.</summary>
    private CommandRun? WaitForCommand()
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

    private void CompleteCommand(GuestOutcome? outcome)
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
    private bool Fail(string reason)
    {
        lock (_gate)
        {
            _failure ??= reason;

            // A failed vCPU is out of the guest: who waits for a pause need not wait on.
            _parkedSignal.TrySetResult();
        }

        return false;
    }
}
