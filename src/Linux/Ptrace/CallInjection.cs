using System.Diagnostics;
using System.Globalization;
using Fleet.Linux.Interop;
using Fleet.Linux.Processes;

namespace Fleet.Linux.Ptrace;

/// <summary>
/// System calls made by a thread of another process: the thread is stopped, for each call its registers are set to make it from the vDSO
/// and it is stepped once, and they are put back. Runs on one OS thread from beginning to end; when that thread ends the kernel lets the target go.
/// </summary>
internal sealed class CallInjection(ProcessIdentity process, long number, IReadOnlyList<ulong[]> calls, TimeSpan stopTimeout)
{
    // A thread that waits in the kernel uninterruptibly cannot be stopped; another thread of the process makes the call as well.
    private const int MostThreads = 4;

    // All but SIGTRAP, which says that the step is done: forcing it on a thread that blocks it would reset the target's handler.
    private const ulong AllButTrap = ~(1UL << (Constants.SIGTRAP - 1));

    private long _began;

    /// <summary>What the last call returned: the negative error number where it failed, and no other was made after it.</summary>
    internal long Result { get; private set; }

    /// <summary>From the request to stop until the thread ran on.</summary>
    internal TimeSpan Stopped { get; private set; }

    /// <exception cref="LinuxException">Nothing was changed in the target: see <see cref="RemoteCall"/>.</exception>
    internal void Run()
    {
        var instruction = VdsoCode.Find(process.Pid, MachineX64.CallInstruction);
        var thread = Stop();
        try
        {
            Call(thread, instruction);
        }
        finally
        {
            Stopped = Stopwatch.GetElapsedTime(_began);
        }
    }

    private TracedThread Stop()
    {
        foreach (var tid in Threads())
        {
            var thread = TracedThread.Seize(tid);
            if (!process.IsAlive())
            {
                // The pid is another process's by now. It was not stopped, and is let go with this thread.
                throw new LinuxException("PTRACE_SEIZE", Errno.ESRCH);
            }

            _began = Stopwatch.GetTimestamp();
            thread.Interrupt();
            if (HasStopped(thread, _began + (long)(stopTimeout.TotalSeconds * Stopwatch.Frequency)))
            {
                return thread;
            }
        }

        // Those that did not stop are let go with this thread: a request to stop that was not met yet goes with its tracer.
        throw new LinuxException("PTRACE_INTERRUPT", Errno.ETIMEDOUT);
    }

    // The main thread first: in a VMM it seldom runs, and never the guest.
    private IEnumerable<int> Threads() => Directory.EnumerateDirectories(FormattableString.Invariant($"/proc/{process.Pid}/task"))
        .Select(path => int.Parse(Path.GetFileName(path.AsSpan()), CultureInfo.InvariantCulture))
        .OrderBy(tid => tid == process.Pid ? 0 : 1)
        .Take(MostThreads);

    private static bool HasStopped(TracedThread thread, long deadline)
    {
        while (thread.Wait(deadline) is { } stop)
        {
            if (stop.IsEvent)
            {
                return true;
            }

            // A signal came first: it is delivered as if nobody looked, and the stop comes after it.
            thread.Continue(stop.Signal);
        }

        return false;
    }

    private void Call(TracedThread thread, ulong instruction)
    {
        var registers = thread.GetRegisters();
        var mask = thread.GetSignalMask();
        var late = 0;
        try
        {
            if (!MachineX64.IsNative(registers))
            {
                throw new LinuxException("inject a system call into a 32-bit thread", Errno.ENOTSUP);
            }

            // Signals that come now stay in the kernel's queue, with all that belongs to them.
            thread.SetSignalMask(AllButTrap);
            foreach (var arguments in calls)
            {
                thread.SetRegisters(MachineX64.PrepareCall(registers, instruction, number, arguments));
                late |= Step(thread, instruction);
                Result = MachineX64.Result(thread.GetRegisters());
                if (Result < 0)
                {
                    break;
                }
            }
        }
        finally
        {
            Restore(thread, registers, mask, late);
        }
    }

    // Waits for as long as the target lives: before the step is done its registers must not be put back.
    private static int Step(TracedThread thread, ulong instruction)
    {
        var late = 0;
        for (var deliver = 0; ;)
        {
            thread.SingleStep(deliver);
            var stop = thread.Wait(deadline: null)!.Value;
            deliver = 0;
            if (stop is { IsEvent: false, Signal: Constants.SIGTRAP })
            {
                if (MachineX64.IsDone(thread.GetRegisters(), instruction))
                {
                    return late;
                }

                // Somebody sent a SIGTRAP.
                late = Constants.SIGTRAP;
            }
            else if (!stop.IsEvent)
            {
                // SIGSTOP, which cannot be blocked: the process stops, and this thread's step is made all the same.
                deliver = stop.Signal;
            }
        }
    }

    private static void Restore(TracedThread thread, MachineX64.Registers registers, ulong mask, int late)
    {
        try
        {
            thread.SetRegisters(registers);
            thread.SetSignalMask(mask);
            thread.Detach(late);
        }
        catch (LinuxException exception) when (exception.Errno == Errno.ESRCH)
        {
            // Killed meanwhile: there is nothing left to restore.
        }
    }
}
