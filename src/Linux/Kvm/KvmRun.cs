using System.Runtime.InteropServices;

namespace Fleet.Linux.Kvm;

/// <summary>
/// The head of <c>struct kvm_run</c>, shared with the kernel: why KVM_RUN returned, and the data of that exit. The kernel's
/// structure is longer and overlays every kind of exit at offset 32; the ones a tiny VMM meets are laid out here.
/// </summary>
[StructLayout(LayoutKind.Explicit, Size = 56)]
public struct KvmRun
{
    public const uint KVM_EXIT_IO = 2;
    public const uint KVM_EXIT_HLT = 5;
    public const uint KVM_EXIT_MMIO = 6;
    public const uint KVM_EXIT_SHUTDOWN = 8;
    public const uint KVM_EXIT_FAIL_ENTRY = 9;
    public const uint KVM_EXIT_INTERNAL_ERROR = 17;

    public const byte KVM_EXIT_IO_IN = 0;
    public const byte KVM_EXIT_IO_OUT = 1;

    [FieldOffset(1)] public byte ImmediateExit;
    [FieldOffset(8)] public uint ExitReason;

    [FieldOffset(32)] public byte IoDirection;
    [FieldOffset(33)] public byte IoSize;
    [FieldOffset(34)] public ushort IoPort;
    [FieldOffset(36)] public uint IoCount;

    /// <summary>Where the data of a port access lies, in bytes from the start of this structure.</summary>
    [FieldOffset(40)] public ulong IoDataOffset;

    [FieldOffset(32)] public ulong MmioPhysicalAddress;

    /// <summary>The 8 data bytes: written by the guest, or to be filled in by the VMM for a read.</summary>
    [FieldOffset(40)] public ulong MmioData;
    [FieldOffset(48)] public uint MmioLength;
    [FieldOffset(52)] public byte MmioIsWrite;

    [FieldOffset(32)] public ulong HardwareEntryFailureReason;
    [FieldOffset(32)] public uint InternalSuberror;
}
