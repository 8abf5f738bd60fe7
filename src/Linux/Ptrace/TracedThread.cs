using System.Diagnostics;
using System.Globalization;
using Fleet.Linux.Interop;

namespace Fleet.Linux.Ptrace;

/// <summary>
/// One thread of another process under ptrace(2). Every call must come from the OS thread that made this object: the kernel knows
/// tracers by thread, and lets go of a tracee when its tracer's thread ends. Not for a child that System.Diagnostics.Process started: it
/// takes the stops for itself.
/// </summary>
internal sealed unsafe class TracedThread
{
    private readonly int _tid;

    private TracedThread(int tid) => _tid = tid;

    /// <summary>PTRACE_SEIZE: traces the thread without stopping it. If this process is killed the thread runs on, as it is then.</summary>
    /// <exception cref="LinuxException">
    /// EBUSY: another process (a debugger, strace) traces it; EPERM: no right (CAP_SYS_PTRACE); ESRCH: it has ended.
    /// </exception>
    internal static TracedThread Seize(int tid)
    {
        try
        {
            Request(PtraceConstants.PTRACE_SEIZE, tid, 0, PtraceConstants.PTRACE_O_TRACESYSGOOD, "PTRACE_SEIZE");
            return new TracedThread(tid);
        }
        catch (LinuxException exception) when (exception.Errno == Errno.EPERM)
        {
            // The kernel has one answer for three reasons (ptrace_attach in kernel/ptrace.c).
            throw Status(tid) switch
            {
                null or { State: 'Z' or 'X' } => new LinuxException("PTRACE_SEIZE", Errno.ESRCH),
                { Tracer: > 0 and var tracer } => new LinuxException(FormattableString.Invariant($"PTRACE_SEIZE (process {tracer} traces it)"), Errno.EBUSY),
                _ => exception,
            };
        }
    }

    internal void Interrupt() => Request(PtraceConstants.PTRACE_INTERRUPT, _tid, 0, 0, "PTRACE_INTERRUPT");

    /// <summary>Lets the thread run on, with the signal of a signal-delivery-stop, or 0 for none.</summary>
    internal void Continue(int signal) => Request(PtraceConstants.PTRACE_CONT, _tid, 0, signal, "PTRACE_CONT");

    /// <summary>Lets the thread run to the entry or the exit of a system call. Unlike a single step it leaves nothing behind if this process dies.</summary>
    internal void ContinueToSystemCall(int signal) => Request(PtraceConstants.PTRACE_SYSCALL, _tid, 0, signal, "PTRACE_SYSCALL");

    /// <summary>Ends the tracing of a stopped thread; it runs on, or stays stopped where its process is (SIGSTOP).</summary>
    /// <param name="signal">Delivered then; 0 for none.</param>
    internal void Detach(int signal = 0) => Request(PtraceConstants.PTRACE_DETACH, _tid, 0, signal, "PTRACE_DETACH");

    /// <summary>Waits for the next stop.</summary>
    /// <param name="deadline">As <see cref="Stopwatch.GetTimestamp"/>; null waits for as long as the thread lives.</param>
    /// <returns>Null when the deadline passed.</returns>
    /// <exception cref="LinuxException">ESRCH: the thread has ended.</exception>
    internal TraceStop? Wait(long? deadline)
    {
        // A stop is a matter of microseconds: asking again costs the target less than a blocking wait, which has no deadline.
        for (var round = 0; ; round++)
        {
            int status;
            var got = Libc.waitpid(_tid, &status, Constants.__WALL | Constants.WNOHANG);
            if (got == _tid)
            {
                return TraceStop.From(status) ?? throw new LinuxException("ptrace: the thread ended", Errno.ESRCH);
            }

            if (got < 0 && LinuxException.LastError != Errno.EINTR)
            {
                throw new LinuxException("waitpid", LinuxException.LastError == Errno.ECHILD ? Errno.ESRCH : LinuxException.LastError);
            }

            if (deadline is { } limit && Stopwatch.GetTimestamp() > limit)
            {
                return null;
            }

            Pause(round);
        }
    }

    internal MachineX64.Registers GetRegisters()
    {
        MachineX64.Registers registers;
        var vector = new IoVector { Base = (nint)(&registers), Length = (nuint)sizeof(MachineX64.Registers) };
        Request(PtraceConstants.PTRACE_GETREGSET, _tid, PtraceConstants.NT_PRSTATUS, (nint)(&vector), "PTRACE_GETREGSET");
        // A 32-bit thread has a shorter set.
        return vector.Length == (nuint)sizeof(MachineX64.Registers) ? registers : throw new LinuxException("PTRACE_GETREGSET", Errno.ENOTSUP);
    }

    /// <summary>The floating-point and vector registers, in the form that the machine's file knows.</summary>
    internal byte[] GetVectorRegisters()
    {
        var buffer = new byte[MachineX64.LargestVectorRegisters];
        fixed (byte* bytes = buffer)
        {
            var vector = new IoVector { Base = (nint)bytes, Length = (nuint)buffer.Length };
            Request(PtraceConstants.PTRACE_GETREGSET, _tid, MachineX64.VectorRegisterSet, (nint)(&vector), "PTRACE_GETREGSET");
            return buffer[..(int)vector.Length];
        }
    }

    internal void SetRegisters(MachineX64.Registers registers)
    {
        var vector = new IoVector { Base = (nint)(&registers), Length = (nuint)sizeof(MachineX64.Registers) };
        Request(PtraceConstants.PTRACE_SETREGSET, _tid, PtraceConstants.NT_PRSTATUS, (nint)(&vector), "PTRACE_SETREGSET");
    }

    /// <summary>The thread's blocked signals; bit N-1 is signal N.</summary>
    internal ulong GetSignalMask()
    {
        ulong mask;
        Request(PtraceConstants.PTRACE_GETSIGMASK, _tid, sizeof(ulong), (nint)(&mask), "PTRACE_GETSIGMASK");
        return mask;
    }

    internal void SetSignalMask(ulong mask) => Request(PtraceConstants.PTRACE_SETSIGMASK, _tid, sizeof(ulong), (nint)(&mask), "PTRACE_SETSIGMASK");

    // Null when there is no such thread.
    private static (char State, int Tracer)? Status(int tid)
    {
        try
        {
            var fields = File.ReadLines(FormattableString.Invariant($"/proc/{tid}/status"))
                .Select(line => line.Split(':', 2)).Where(parts => parts.Length == 2).ToDictionary(parts => parts[0], parts => parts[1].Trim());
            return (fields["State"][0], int.Parse(fields["TracerPid"], CultureInfo.InvariantCulture));
        }
        catch (IOException)
        {
            return null;
        }
    }

    private static void Pause(int round)
    {
        if (round < 2000)
        {
            Thread.Yield();
        }
        else
        {
            _ = Libc.poll(null, 0, 1);
        }
    }

    private static void Request(int request, int tid, nint address, nint data, string call) =>
        LinuxException.Check(Libc.syscall(SyscallNumbers.ptrace, request, tid, address, data), call);
}

/// <summary>Why a traced thread stopped (ptrace(2), "Stopped states").</summary>
/// <param name="Signal">Of a signal-delivery-stop the signal; of an event-stop SIGTRAP, or the stopping signal of a group-stop.</param>
/// <param name="IsEvent">PTRACE_EVENT_STOP: an interrupt or a group-stop; no signal is being delivered.</param>
internal readonly record struct TraceStop(int Signal, bool IsEvent)
{
    /// <summary>The entry or the exit of a system call.</summary>
    internal bool IsSystemCall => Signal == (Constants.SIGTRAP | PtraceConstants.SystemCallStop);

    /// <param name="status">As waitpid(2) gives it.</param>
    /// <returns>Null when the thread has ended.</returns>
    internal static TraceStop? From(int status) =>
        (status & 0xff) == 0x7f ? new TraceStop((status >> 8) & 0xff, status >> 16 == PtraceConstants.PTRACE_EVENT_STOP) : null;
}
