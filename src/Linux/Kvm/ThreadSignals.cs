using System.Runtime.InteropServices;

namespace Fleet.Linux.Kvm;

/// <summary>
/// Signals of one thread, kept blocked and fetched by hand: the way to see a SIGBUS that KVM sends to a vCPU thread
/// without a signal handler, which managed code cannot be (sigtimedwait(2), pthread_sigmask(3), tgkill(2)).
/// </summary>
public static unsafe partial class ThreadSignals
{
    public const int SIGBUS = 7;
    public const int SIG_BLOCK = 0;

    /// <summary>si_code of a SIGBUS for memory the thread accessed (action required), or merely learned of (action optional).</summary>
    public const int BUS_ADRERR = 2;
    public const int BUS_MCEERR_AR = 4;
    public const int BUS_MCEERR_AO = 5;

    /// <summary>Size of glibc's sigset_t; the kernel reads the first 8 bytes.</summary>
    public const int SignalSetBytes = 128;

    /// <summary>Number of the calling kernel thread.</summary>
    public static int CurrentThread => gettid();

    /// <summary>Blocks the signals (bit 0 for signal 1) in the calling thread.</summary>
    public static void Block(ulong signals)
    {
        var set = stackalloc ulong[SignalSetBytes / sizeof(ulong)];
        set[0] = signals;
        var error = (Errno)pthread_sigmask(SIG_BLOCK, set, null);
        if (error != Errno.None)
        {
            throw new LinuxException("pthread_sigmask", error);
        }
    }

    /// <summary>Takes one pending signal of the set off the calling thread, without waiting; false when none is pending.</summary>
    public static bool TryTake(ulong signals, out SignalInfo info)
    {
        var set = stackalloc ulong[SignalSetBytes / sizeof(ulong)];
        set[0] = signals;
        var now = stackalloc long[2];
        SignalInfo taken;
        while (sigtimedwait(set, &taken, now) < 0)
        {
            switch (LinuxException.LastError)
            {
                case Errno.EINTR:
                    continue;
                case Errno.EAGAIN:
                    info = default;
                    return false;
                case var error:
                    throw new LinuxException("sigtimedwait", error);
            }
        }

        info = taken;
        return true;
    }

    /// <summary>Sends a signal to one thread of this process. A thread that has gone (ESRCH) is no error.</summary>
    public static void Send(int thread, int signal)
    {
        if (tgkill(Environment.ProcessId, thread, signal) < 0 && LinuxException.LastError is var error and not Errno.ESRCH)
        {
            throw new LinuxException("tgkill", error);
        }
    }

    /// <summary>The bit of a signal in a set.</summary>
    public static ulong Bit(int signal) => 1UL << (signal - 1);

    [LibraryImport("libc")]
    private static partial int pthread_sigmask(int how, ulong* set, ulong* oldSet);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int sigtimedwait(ulong* set, SignalInfo* info, long* timeout);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int tgkill(int process, int thread, int signal);

    [LibraryImport("libc")]
    private static partial int gettid();
}

/// <summary><c>siginfo_t</c>, as far as SIGBUS fills it in.</summary>
[StructLayout(LayoutKind.Explicit, Size = 128)]
public struct SignalInfo
{
    [FieldOffset(0)] public int Signal;
    [FieldOffset(8)] public int Code;
    [FieldOffset(16)] public ulong Address;

    /// <summary>Size of the lost memory as a power of two.</summary>
    [FieldOffset(24)] public short AddressLsb;
}
