using System.Runtime.InteropServices;

namespace Fleet.Linux.Kvm;

/// <summary><c>struct kvm_x86_mce</c>: a machine check to inject, as the bank's registers will show it to the guest.</summary>
[StructLayout(LayoutKind.Explicit, Size = 64)]
public struct KvmX86Mce
{
    [FieldOffset(0)] public ulong Status;
    [FieldOffset(8)] public ulong Address;
    [FieldOffset(16)] public ulong Misc;
    [FieldOffset(24)] public ulong McgStatus;
    [FieldOffset(32)] public byte Bank;
}

/// <summary>Bits of the machine-check registers (Intel SDM volume 3B, chapter 17; the values QEMU injects).</summary>
public static class MachineCheckBits
{
    public const ulong StatusValid = 1UL << 63;
    public const ulong StatusUncorrected = 1UL << 61;
    public const ulong StatusEnabled = 1UL << 60;
    public const ulong StatusMiscValid = 1UL << 59;
    public const ulong StatusAddressValid = 1UL << 58;
    public const ulong StatusSignaled = 1UL << 56;
    public const ulong StatusActionRequired = 1UL << 55;

    /// <summary>MCACOD of a data load error; with S and AR it makes an SRAR (software recoverable, action required).</summary>
    public const ulong CodeDataLoad = 0x134;

    /// <summary>The status of an SRAR with address and misc valid.</summary>
    public const ulong StatusSrar = StatusValid | StatusUncorrected | StatusEnabled | StatusMiscValid
        | StatusAddressValid | StatusSignaled | StatusActionRequired | CodeDataLoad;

    /// <summary>MCG_STATUS: RIPV, EIPV and MCIP.</summary>
    public const ulong McgRestartErrorInProgress = 7;

    /// <summary>MISC of a failed page: address mode 2 (physical) in bits 8:6, the lowest valid bit of the address, which is the page's size, in 5:0.</summary>
    public static ulong MiscPhysicalPage(int shift) => (2 << 6) | (uint)shift;

    /// <summary>MCG_CAP: the bank count is its low byte.</summary>
    public const ulong McgCapCountMask = 0xff;
}
