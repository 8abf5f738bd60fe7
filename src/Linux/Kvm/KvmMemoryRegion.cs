using System.Runtime.InteropServices;

namespace Fleet.Linux.Kvm;

/// <summary><c>struct kvm_userspace_memory_region</c>: one memory slot. A size of 0 removes the slot.</summary>
[StructLayout(LayoutKind.Explicit, Size = 32)]
public struct KvmUserspaceMemoryRegion
{
    [FieldOffset(0)] public uint Slot;
    [FieldOffset(4)] public uint Flags;
    [FieldOffset(8)] public ulong GuestPhysicalAddress;
    [FieldOffset(16)] public ulong MemorySize;
    [FieldOffset(24)] public ulong UserspaceAddress;
}
