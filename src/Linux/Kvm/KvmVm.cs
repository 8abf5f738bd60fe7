using Fleet.Linux.Interop;

namespace Fleet.Linux.Kvm;

/// <summary>One virtual machine: its memory slots and vCPUs.</summary>
public sealed unsafe class KvmVm : IDisposable
{
    private readonly FileDescriptor _fd;

    internal KvmVm(FileDescriptor fd) => _fd = fd;

    /// <summary>
    /// Where KVM may put three pages of its own, on Intel processors without unrestricted guest mode; below 4 GiB, not in a slot.
    /// </summary>
    public void SetTssAddress(uint address) =>
        Call(KvmIoctl.KVM_SET_TSS_ADDR, (void*)address, "KVM_SET_TSS_ADDR");

    /// <summary>Makes process memory visible to the guest.</summary>
    /// <exception cref="LinuxException">EEXIST: overlaps another slot; EINVAL: not page-aligned, or no such slot number.</exception>
    public void SetMemoryRegion(uint slot, ulong guestPhysicalAddress, ulong bytes, ulong hostVirtualAddress)
    {
        var region = new KvmUserspaceMemoryRegion
        {
            Slot = slot,
            GuestPhysicalAddress = guestPhysicalAddress,
            MemorySize = bytes,
            UserspaceAddress = hostVirtualAddress,
        };
        Call(KvmIoctl.KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
    }

    public KvmVcpu CreateVcpu(int id, int runBytes) =>
        new(new FileDescriptor(Call(KvmIoctl.KVM_CREATE_VCPU, (void*)id, "KVM_CREATE_VCPU")), runBytes);

    public void Dispose() => _fd.Dispose();

    private int Call(uint request, void* argument, string name) => LinuxException.Check(Libc.ioctl(_fd.Number, request, argument), name);
}
