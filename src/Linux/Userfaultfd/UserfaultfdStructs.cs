using System.Runtime.InteropServices;

namespace Fleet.Linux.Userfaultfd;

/// <summary>struct uffdio_api.</summary>
[StructLayout(LayoutKind.Explicit, Size = 24)]
internal struct UffdioApi
{
    [FieldOffset(0)] internal ulong Api;
    [FieldOffset(8)] internal ulong Features;
    [FieldOffset(16)] internal ulong Ioctls;
}

/// <summary>struct uffdio_range.</summary>
[StructLayout(LayoutKind.Explicit, Size = 16)]
internal struct UffdioRange
{
    [FieldOffset(0)] internal ulong Start;
    [FieldOffset(8)] internal ulong Length;
}

/// <summary>struct uffdio_register.</summary>
[StructLayout(LayoutKind.Explicit, Size = 32)]
internal struct UffdioRegister
{
    [FieldOffset(0)] internal UffdioRange Range;
    [FieldOffset(16)] internal ulong Mode;
    [FieldOffset(24)] internal ulong Ioctls;
}

/// <summary>struct uffdio_copy.</summary>
[StructLayout(LayoutKind.Explicit, Size = 40)]
internal struct UffdioCopy
{
    [FieldOffset(0)] internal ulong Destination;
    [FieldOffset(8)] internal ulong Source;
    [FieldOffset(16)] internal ulong Length;
    [FieldOffset(24)] internal ulong Mode;
    [FieldOffset(32)] internal long Copied;
}

/// <summary>struct uffdio_zeropage, uffdio_continue and uffdio_poison: they share one layout.</summary>
[StructLayout(LayoutKind.Explicit, Size = 32)]
internal struct UffdioRangeResult
{
    [FieldOffset(0)] internal UffdioRange Range;
    [FieldOffset(16)] internal ulong Mode;
    [FieldOffset(24)] internal long Done;
}

/// <summary>struct uffd_msg for UFFD_EVENT_PAGEFAULT, REMOVE and UNMAP (the union's first two words serve all).</summary>
[StructLayout(LayoutKind.Explicit, Size = 32)]
internal struct UffdMessage
{
    [FieldOffset(0)] internal byte Event;
    [FieldOffset(8)] internal ulong Flags;
    [FieldOffset(16)] internal ulong Address;
    [FieldOffset(24)] internal uint ThreadId;

    // REMOVE and UNMAP: start at 8, end at 16.
    [FieldOffset(8)] internal ulong RemoveStart;
    [FieldOffset(16)] internal ulong RemoveEnd;

    // REMAP: from at 8, to at 16, length at 24.
    [FieldOffset(24)] internal ulong RemapLength;
}
