using System.Runtime.InteropServices;

namespace Fleet.Linux.Ptrace;

/// <summary>
/// All that an injected system call needs to know of x86-64. Another architecture is another file like this one; the rest of the
/// folder knows none.
/// </summary>
internal static class MachineX64
{
    /// <summary>System call numbers of the calls that are injected (&lt;asm/unistd_64.h&gt;).</summary>
    internal const long SYS_madvise = 28;
    internal const long SYS_userfaultfd = 323;

    // User code segment of a 64-bit thread (arch/x86/include/asm/segment.h, __USER_CS); 0x23 is a 32-bit one.
    private const ulong UserCodeSegment = 0x33;

    internal static bool IsThisMachine => RuntimeInformation.ProcessArchitecture == Architecture.X64;

    /// <summary><c>syscall</c>.</summary>
    internal static ReadOnlySpan<byte> CallInstruction => [0x0f, 0x05];

    /// <summary>The thread runs 64-bit code, so that its system call numbers are those above.</summary>
    internal static bool IsNative(in Registers registers) => registers.Cs == UserCodeSegment;

    /// <summary>
    /// Registers with which one step from the instruction makes the call. orig_rax = -1 says that no interrupted system call is to be
    /// restarted on the way there; the saved registers still say it, and restoring them restarts it.
    /// </summary>
    internal static Registers PrepareCall(Registers registers, ulong instruction, long number, ReadOnlySpan<ulong> arguments)
    {
        registers.Rip = instruction;
        registers.OrigRax = ulong.MaxValue;
        registers.Rax = (ulong)number;
        registers.Rdi = Argument(arguments, 0);
        registers.Rsi = Argument(arguments, 1);
        registers.Rdx = Argument(arguments, 2);
        registers.R10 = Argument(arguments, 3);
        return registers;
    }

    /// <summary>The step over the instruction is done.</summary>
    internal static bool IsDone(in Registers registers, ulong instruction) => registers.Rip == instruction + (ulong)CallInstruction.Length;

    /// <summary>What the call returned: the negative error number where it failed.</summary>
    internal static long Result(in Registers registers) => (long)registers.Rax;

    private static ulong Argument(ReadOnlySpan<ulong> arguments, int index) => index < arguments.Length ? arguments[index] : 0;

    /// <summary>struct user_regs_struct, &lt;sys/user.h&gt;.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct Registers
    {
        internal ulong R15;
        internal ulong R14;
        internal ulong R13;
        internal ulong R12;
        internal ulong Rbp;
        internal ulong Rbx;
        internal ulong R11;
        internal ulong R10;
        internal ulong R9;
        internal ulong R8;
        internal ulong Rax;
        internal ulong Rcx;
        internal ulong Rdx;
        internal ulong Rsi;
        internal ulong Rdi;
        internal ulong OrigRax;
        internal ulong Rip;
        internal ulong Cs;
        internal ulong Eflags;
        internal ulong Rsp;
        internal ulong Ss;
        internal ulong FsBase;
        internal ulong GsBase;
        internal ulong Ds;
        internal ulong Es;
        internal ulong Fs;
        internal ulong Gs;
    }
}
