using Fleet.Linux.Memory;

namespace Fleet.Linux.Ptrace;

/// <summary>A stopped thread that is made to make system calls. From the first change to <see cref="Restore"/> it can go back by itself.</summary>
internal sealed class StoppedThread
{
    private readonly TracedThread _thread;
    private readonly MachineX64.Registers _registers;
    private readonly ulong _mask;
    private readonly CallSite _site;
    private readonly ulong _stack;

    /// <summary>For tests: between the two steps of <see cref="Prepare"/> and of <see cref="Restore"/>, where this process can be killed too.</summary>
    internal Action? Between { get; set; }

    /// <summary>
    /// Saves what is going to be changed, here and, as a signal frame below its stack, in the process itself: if this process is killed,
    /// the thread makes the call, returns to the frame, and goes on where it was.
    /// </summary>
    /// <exception cref="LinuxException">ENOTSUP: a 32-bit thread. Nothing was changed.</exception>
    internal StoppedThread(TracedThread thread, int pid, CallSite site)
    {
        (_thread, _site) = (thread, site);
        _registers = thread.GetRegisters();
        _mask = thread.GetSignalMask();
        if (!MachineX64.IsNative(_registers))
        {
            throw new LinuxException("inject a system call into a 32-bit thread", Errno.ENOTSUP);
        }

        _stack = _registers.Rsp;
        if (site.SignalReturn is { } signalReturn)
        {
            var (address, bytes) = MachineX64.SignalFrame(_registers, thread.GetVectorRegisters(), _mask, signalReturn);
            // Where the stack ends there, there is no way back without this process; that is no reason not to go.
            _stack = ProcessMemory.Write(pid, address, bytes) == Errno.None ? address : _stack;
        }
    }

    /// <summary>
    /// Makes the thread's next step the call. The registers come first: with them alone the thread makes the call and goes back by its signal
    /// frame, and a signal in between runs its handler above that frame. Signals blocked without them nobody would ever unblock.
    /// </summary>
    internal void Prepare(long number, ReadOnlySpan<ulong> arguments)
    {
        _thread.SetRegisters(MachineX64.PrepareCall(_registers, _site.Instruction, _stack, number, arguments));
        Between?.Invoke();
        // Signals that come from now on stay in the kernel's queue, with all that belongs to them.
        _thread.SetSignalMask(ulong.MaxValue);
    }

    /// <summary>Runs to the call's entry, or from there to its exit. Waits for as long as the thread lives: before, its registers must not be put back.</summary>
    internal void RunToSystemCall()
    {
        for (var deliver = 0; ;)
        {
            _thread.ContinueToSystemCall(deliver);
            var stop = _thread.Wait(deadline: null)!.Value;
            if (stop.IsSystemCall)
            {
                return;
            }

            // SIGSTOP, which cannot be blocked: the process stops, and this thread makes its call all the same.
            deliver = stop.IsEvent ? 0 : stop.Signal;
        }
    }

    /// <summary>What the call returned, at its exit.</summary>
    internal long Result() => MachineX64.Result(_thread.GetRegisters());

    /// <summary>Puts everything back, and lets the thread go.</summary>
    internal void Restore()
    {
        try
        {
            // In this order for the same reason.
            _thread.SetSignalMask(_mask);
            Between?.Invoke();
            _thread.SetRegisters(_registers);
            _thread.Detach();
        }
        catch (LinuxException exception) when (exception.Errno == Errno.ESRCH)
        {
            // Killed meanwhile: there is nothing left to restore.
        }
    }
}
