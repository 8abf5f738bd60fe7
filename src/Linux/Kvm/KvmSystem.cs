using Fleet.Linux.Interop;

namespace Fleet.Linux.Kvm;

/// <summary>/dev/kvm: what this kernel's KVM offers, and the way to a VM (Documentation/virt/kvm/api.rst).</summary>
public sealed unsafe class KvmSystem : IDisposable
{
    public const string DevicePath = "/dev/kvm";

    private readonly FileDescriptor _fd;

    private KvmSystem(FileDescriptor fd) => _fd = fd;

    /// <exception cref="LinuxException">
    /// ENOENT: no KVM in this kernel or machine; EACCES: no right to the device; EINVAL here: another API version.
    /// </exception>
    public static KvmSystem Open()
    {
        // Opened for reading, which is all that its ioctls ask for.
        var system = new KvmSystem(FileDescriptor.OpenRead(DevicePath));
        var version = Libc.ioctl(system._fd.Number, KvmIoctl.KVM_GET_API_VERSION, null);
        if (version == KvmIoctl.ApiVersion)
        {
            return system;
        }

        var error = new LinuxException("KVM_GET_API_VERSION", version < 0 ? LinuxException.LastError : Errno.EINVAL);
        system.Dispose();
        throw error;
    }

    /// <summary>Size of a vCPU's shared run structure, in bytes.</summary>
    public int RunBytes => Call(KvmIoctl.KVM_GET_VCPU_MMAP_SIZE, null, "KVM_GET_VCPU_MMAP_SIZE");

    /// <summary>Value of an extension: 0 when missing.</summary>
    public int CheckExtension(int capability) =>
        Call(KvmIoctl.KVM_CHECK_EXTENSION, (void*)capability, "KVM_CHECK_EXTENSION");

    /// <summary>MCG_CAP bits that this KVM can give a guest; the low byte is the default bank count, not a limit.</summary>
    public ulong MachineCheckCapabilities
    {
        get
        {
            ulong bits = 0;
            Call(KvmIoctl.KVM_X86_GET_MCE_CAP_SUPPORTED, &bits, "KVM_X86_GET_MCE_CAP_SUPPORTED");
            return bits;
        }
    }

    /// <summary>The CPUID table this KVM supports, ready for <see cref="KvmVcpu.SetCpuid"/>.</summary>
    public KvmCpuid SupportedCpuid()
    {
        // The kernel answers E2BIG until the table is long enough.
        for (var entries = 128; ; entries *= 2)
        {
            var cpuid = new KvmCpuid(entries);
            fixed (byte* table = cpuid.Bytes)
            {
                if (Libc.ioctl(_fd.Number, KvmIoctl.KVM_GET_SUPPORTED_CPUID, table) >= 0)
                {
                    return cpuid;
                }
            }

            var error = LinuxException.LastError;
            if (error != Errno.E2BIG || entries > 4096)
            {
                throw new LinuxException("KVM_GET_SUPPORTED_CPUID", error);
            }
        }
    }

    public KvmVm CreateVm() =>
        new(new FileDescriptor(Call(KvmIoctl.KVM_CREATE_VM, null, "KVM_CREATE_VM")));

    public void Dispose() => _fd.Dispose();

    private int Call(uint request, void* argument, string name) => LinuxException.Check(Libc.ioctl(_fd.Number, request, argument), name);
}
