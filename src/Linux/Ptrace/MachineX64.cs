using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;

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
    internal const long SYS_restart_syscall = 219;

    /// <summary>NT_X86_XSTATE, &lt;elf.h&gt;.</summary>
    internal const int VectorRegisterSet = 0x202;

    // With AMX's tiles the area has 11,008 bytes today.
    internal const int LargestVectorRegisters = 32 * 1024;

    // User code segment of a 64-bit thread (arch/x86/include/asm/segment.h, __USER_CS); 0x23 is a 32-bit one.
    private const ulong UserCodeSegment = 0x33;
    private const int RedZone = 128;

    // struct rt_sigframe (arch/x86/include/asm/sigframe.h): return address, ucontext (<asm/ucontext.h>), siginfo.
    private const int FlagsAt = 8;
    private const int AltStackFlagsAt = 32;
    internal const int ContextAt = 48;
    internal const int FpStateAt = ContextAt + 184;
    internal const int MaskAt = 304;
    private const int FrameBytes = MaskAt + 8 + 128;

    // UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS.
    private const ulong ContextFlags = 7;

    // struct _fpx_sw_bytes at the end of the FXSAVE area (<asm/sigcontext.h>), and the XSAVE header behind it.
    private const int SoftwareAt = 464;
    private const int XsaveHeaderAt = 512;
    private const int XsaveHeaderBytes = 64;
    private const uint FP_XSTATE_MAGIC1 = 0x46505853;
    private const uint FP_XSTATE_MAGIC2 = 0x46505845;

    internal static bool IsThisMachine => RuntimeInformation.ProcessArchitecture == Architecture.X64;

    /// <summary><c>syscall</c>.</summary>
    internal static ReadOnlySpan<byte> Call => [0x0f, 0x05];

    /// <summary><c>syscall; ret</c>.</summary>
    internal static ReadOnlySpan<byte> CallAndReturn => [0x0f, 0x05, 0xc3];

    /// <summary><c>mov $15, %rax; syscall</c>: rt_sigreturn, as every C library has it for its signal handlers.</summary>
    internal static ReadOnlySpan<byte> SignalReturn => [0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05];

    /// <summary>The thread runs 64-bit code, so that its system call numbers are those above.</summary>
    internal static bool IsNative(in Registers registers) => registers.Cs == UserCodeSegment;

    /// <summary>
    /// Registers with which the thread makes the call. orig_rax = -1 says that no interrupted system call is to be restarted on the
    /// way there; the saved registers still say it, and restoring them restarts it.
    /// </summary>
    internal static Registers PrepareCall(Registers registers, ulong instruction, ulong stack, long number, ReadOnlySpan<ulong> arguments)
    {
        registers.Rip = instruction;
        registers.Rsp = stack;
        registers.OrigRax = ulong.MaxValue;
        registers.Rax = (ulong)number;
        registers.Rdi = Argument(arguments, 0);
        registers.Rsi = Argument(arguments, 1);
        registers.Rdx = Argument(arguments, 2);
        registers.R10 = Argument(arguments, 3);
        return registers;
    }

    /// <summary>What the call returned: the negative error number where it failed.</summary>
    internal static long Result(in Registers registers) => (long)registers.Rax;

    /// <summary>
    /// A signal frame as the kernel would push it: a thread that returns to <paramref name="signalReturn"/> with it goes on where it was, with
    /// all registers and its signal mask, by itself.
    /// </summary>
    /// <returns>Where the frame belongs, which is also the stack pointer that leads to it, and its bytes.</returns>
    internal static (ulong Address, byte[] Bytes) SignalFrame(in Registers registers, byte[] vectors, ulong mask, ulong signalReturn)
    {
        var vectorBytes = UsedBytes(vectors);
        var vectorAddress = (registers.Rsp - RedZone - (ulong)vectorBytes - sizeof(uint)) & ~63UL;
        var address = ((vectorAddress - FrameBytes) & ~15UL) - 8;
        var bytes = new byte[(int)(vectorAddress - address) + vectorBytes + sizeof(uint)];
        Put(bytes, 0, signalReturn);
        Put(bytes, FlagsAt, ContextFlags);
        // No valid flags: the kernel leaves the alternate signal stack as it is.
        Put(bytes, AltStackFlagsAt, 0xdead);
        PutContext(bytes.AsSpan(ContextAt), Restarted(registers));
        Put(bytes, FpStateAt, vectorAddress);
        Put(bytes, MaskAt, mask);
        PutVectors(bytes.AsSpan((int)(vectorAddress - address)), vectors, vectorBytes);
        return (address, bytes);
    }

    // What the kernel does on the way back to user mode where no handler runs: an interrupted system call is made again. One that
    // keeps its state in the kernel ends with EINTR after a signal frame.
    private static Registers Restarted(Registers registers)
    {
        const long ERESTARTSYS = -512, ERESTARTNOHAND = -514, ERESTART_RESTARTBLOCK = -516;
        var result = (long)registers.Rax;
        if ((long)registers.OrigRax >= 0 && result is <= ERESTARTSYS and >= ERESTARTNOHAND or ERESTART_RESTARTBLOCK)
        {
            registers.Rax = result == ERESTART_RESTARTBLOCK ? SYS_restart_syscall : registers.OrigRax;
            registers.Rip -= (ulong)Call.Length;
        }

        return registers;
    }

    // struct sigcontext_64.
    private static void PutContext(Span<byte> context, in Registers registers)
    {
        ReadOnlySpan<ulong> fields =
        [
            registers.R8, registers.R9, registers.R10, registers.R11, registers.R12, registers.R13, registers.R14, registers.R15,
            registers.Rdi, registers.Rsi, registers.Rbp, registers.Rbx, registers.Rdx, registers.Rax, registers.Rcx, registers.Rsp, registers.Rip, registers.Eflags,
            registers.Cs & 0xffff | (registers.Ss & 0xffff) << 48,
        ];
        MemoryMarshal.AsBytes(fields).CopyTo(context);
    }

    private static void PutVectors(Span<byte> area, byte[] vectors, int bytes)
    {
        vectors.AsSpan(0, bytes).CopyTo(area);
        area.Slice(SoftwareAt, 48).Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(area[SoftwareAt..], FP_XSTATE_MAGIC1);
        BinaryPrimitives.WriteUInt32LittleEndian(area[(SoftwareAt + 4)..], (uint)bytes + sizeof(uint));
        BinaryPrimitives.WriteUInt64LittleEndian(area[(SoftwareAt + 8)..], Components(vectors));
        BinaryPrimitives.WriteUInt32LittleEndian(area[(SoftwareAt + 16)..], (uint)bytes);
        BinaryPrimitives.WriteUInt32LittleEndian(area[bytes..], FP_XSTATE_MAGIC2);
    }

    // Up to the end of the last component that is in use: never more than what the kernel lets the thread have.
    private static int UsedBytes(byte[] vectors)
    {
        var end = XsaveHeaderAt + XsaveHeaderBytes;
        for (var component = 2; component < 63; component++)
        {
            if ((Components(vectors) & (1UL << component)) != 0)
            {
                var (bytes, offset, _, _) = X86Base.CpuId(0xd, component);
                end = Math.Max(end, bytes + offset);
            }
        }

        return end <= vectors.Length ? end : throw new LinuxException("read the vector registers", Errno.ENOTSUP);
    }

    // XSTATE_BV. x87 and SSE are always restored, in use or not.
    private static ulong Components(byte[] vectors) => BinaryPrimitives.ReadUInt64LittleEndian(vectors.AsSpan(XsaveHeaderAt)) | 3;

    private static void Put(byte[] bytes, int at, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(at), value);

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
