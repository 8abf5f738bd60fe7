using System.Runtime.CompilerServices;
using Fleet.Linux.Interop;
using Fleet.Linux.Memory;

namespace Fleet.Linux.Kvm;

/// <summary>One vCPU. Every call belongs on the one thread that runs it.</summary>
public sealed unsafe class KvmVcpu : IDisposable
{
    /// <summary>Offset of the set in <c>struct kvm_signal_mask</c>.</summary>
    public const int SignalMaskHeaderBytes = 4;

    private readonly FileDescriptor _fd;
    private readonly MemoryMapping _run;

    internal KvmVcpu(FileDescriptor fd, int runBytes)
    {
        _fd = fd;
        try
        {
            _run = MemoryMapping.MapShared(fd, 0, runBytes);
        }
        catch
        {
            fd.Dispose();
            throw;
        }
    }

    /// <summary>The structure shared with the kernel; valid until the vCPU is disposed of.</summary>
    public ref KvmRun State => ref Unsafe.AsRef<KvmRun>((void*)_run.Address);

    /// <summary>The data of the present 32-bit port access (KVM_EXIT_IO).</summary>
    public ref uint IoData => ref Unsafe.AsRef<uint>((byte*)_run.Address + State.IoDataOffset);

    /// <summary>Runs the guest until an exit (true) or a signal of the vCPU's signal mask (false).</summary>
    /// <exception cref="LinuxException">Anything but EINTR and EAGAIN: the vCPU cannot go on.</exception>
    public bool Run()
    {
        if (Libc.ioctl(_fd.Number, KvmIoctl.KVM_RUN, null) >= 0)
        {
            return true;
        }

        var error = LinuxException.LastError;
        return error is Errno.EINTR or Errno.EAGAIN ? false : throw new LinuxException("KVM_RUN", error);
    }

    public KvmRegs GetRegisters()
    {
        KvmRegs registers;
        Call(KvmIoctl.KVM_GET_REGS, &registers, "KVM_GET_REGS");
        return registers;
    }

    public void SetRegisters(KvmRegs registers) => Call(KvmIoctl.KVM_SET_REGS, &registers, "KVM_SET_REGS");

    public KvmSregs GetSpecialRegisters()
    {
        KvmSregs registers;
        Call(KvmIoctl.KVM_GET_SREGS, &registers, "KVM_GET_SREGS");
        return registers;
    }

    public void SetSpecialRegisters(KvmSregs registers) => Call(KvmIoctl.KVM_SET_SREGS, &registers, "KVM_SET_SREGS");

    public void SetCpuid(KvmCpuid cpuid)
    {
        ArgumentNullException.ThrowIfNull(cpuid);
        fixed (byte* table = cpuid.Bytes)
        {
            Call(KvmIoctl.KVM_SET_CPUID2, table, "KVM_SET_CPUID2");
        }
    }

    /// <summary>Gives the guest machine-check banks: MCG_CAP with the bank count in its low byte (at most 32).</summary>
    public void SetupMachineCheck(ulong capabilities) => Call(KvmIoctl.KVM_X86_SETUP_MCE, &capabilities, "KVM_X86_SETUP_MCE");

    /// <summary>
    /// Injects a machine check, delivered before the guest's next instruction. While MCG_STATUS.MCIP is still set from an
    /// earlier one, or with CR4.MCE clear, the processor shuts down instead, as real ones do.
    /// </summary>
    public void InjectMachineCheck(KvmX86Mce machineCheck) => Call(KvmIoctl.KVM_X86_SET_MCE, &machineCheck, "KVM_X86_SET_MCE");

    /// <summary>The signals that are blocked while the guest runs (and only then), one bit each, bit 0 for signal 1.</summary>
    public void SetSignalMask(ulong blocked)
    {
        // struct kvm_signal_mask { __u32 len; __u8 sigset[]; }, where len is that of the kernel's sigset_t.
        var mask = stackalloc byte[SignalMaskHeaderBytes + sizeof(ulong)];
        *(uint*)mask = sizeof(ulong);
        Unsafe.WriteUnaligned(mask + SignalMaskHeaderBytes, blocked);
        Call(KvmIoctl.KVM_SET_SIGNAL_MASK, mask, "KVM_SET_SIGNAL_MASK");
    }

    public void Dispose()
    {
        _run.Dispose();
        _fd.Dispose();
    }

    private void Call(uint request, void* argument, string name) => LinuxException.Check(Libc.ioctl(_fd.Number, request, argument), name);
}
