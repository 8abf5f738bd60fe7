namespace Fleet.Linux.Ptrace;

/// <summary>Requests and events of ptrace(2) that are the same on every architecture (&lt;linux/ptrace.h&gt;).</summary>
internal static class PtraceConstants
{
    internal const int PTRACE_CONT = 7;
    internal const int PTRACE_DETACH = 17;
    internal const int PTRACE_SYSCALL = 24;
    internal const int PTRACE_GETREGSET = 0x4204;
    internal const int PTRACE_SETREGSET = 0x4205;
    internal const int PTRACE_SEIZE = 0x4206;
    internal const int PTRACE_INTERRUPT = 0x4207;
    internal const int PTRACE_GETSIGMASK = 0x420a;
    internal const int PTRACE_SETSIGMASK = 0x420b;

    internal const int PTRACE_EVENT_STOP = 128;
    internal const int PTRACE_O_TRACESYSGOOD = 1;

    /// <summary>Set in the signal of a stop at a system call's entry or exit, with PTRACE_O_TRACESYSGOOD.</summary>
    internal const int SystemCallStop = 0x80;

    /// <summary>The general registers, for PTRACE_GETREGSET (&lt;elf.h&gt;).</summary>
    internal const int NT_PRSTATUS = 1;
}
