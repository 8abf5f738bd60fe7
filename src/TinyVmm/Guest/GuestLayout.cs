namespace Fleet.TinyVmm.Guest;

/// <summary>Where things lie in the guest's physical address space.</summary>
public static class GuestLayout
{
    public const ulong GlobalDescriptorTable = 0x1000;
    public const ulong InterruptDescriptorTable = 0x1800;
    public const ulong Code = 0x2000;

    /// <summary>The stack grows down from here.</summary>
    public const uint StackTop = 0x10000;

    /// <summary>
    /// The guest's own memory, 64 KiB: tables, code, stack. Commands may not name it. A fault there leaves the guest without a
    /// program that could handle it, so the guest stops.
    /// </summary>
    public const ulong ReservedEnd = 0x10000;

    public const ulong SmallestFirstRegion = 1 << 20;

    /// <summary>No RAM here: the window into high memory, and KVM's own pages, lie below 4 GiB as devices do on a PC.</summary>
    public const ulong DeviceHole = 0xf000_0000;
    public const ulong DeviceHoleEnd = 0x1_0000_0000;

    /// <summary>Three pages that KVM takes for itself on some Intel processors.</summary>
    public const uint TssAddress = 0xfffb_d000;
}
