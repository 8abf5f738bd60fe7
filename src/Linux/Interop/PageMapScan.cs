using System.Runtime.InteropServices;

namespace Fleet.Linux.Interop;

/// <summary>struct pm_scan_arg, &lt;linux/fs.h&gt; (Linux 6.7).</summary>
[StructLayout(LayoutKind.Explicit, Size = 96)]
internal struct PageMapScan
{
    internal const ulong PAGEMAP_SCAN = 0xc0606610;
    internal const ulong PAGE_IS_SWAPPED = 1 << 4;
    internal const ulong PAGE_IS_HUGE = 1 << 6;

    [FieldOffset(0)] internal ulong Size;
    [FieldOffset(8)] internal ulong Flags;
    [FieldOffset(16)] internal ulong Start;
    [FieldOffset(24)] internal ulong End;
    [FieldOffset(32)] internal ulong WalkEnd;
    [FieldOffset(40)] internal ulong Vector;
    [FieldOffset(48)] internal ulong VectorLength;
    [FieldOffset(56)] internal ulong MaximumPages;
    [FieldOffset(64)] internal ulong CategoryInverted;
    [FieldOffset(72)] internal ulong CategoryMask;
    [FieldOffset(80)] internal ulong CategoryAnyOf;
    [FieldOffset(88)] internal ulong ReturnMask;
}

/// <summary>struct page_region, &lt;linux/fs.h&gt;.</summary>
[StructLayout(LayoutKind.Explicit, Size = 24)]
internal struct PageRegion
{
    [FieldOffset(0)] internal ulong Start;
    [FieldOffset(8)] internal ulong End;
    [FieldOffset(16)] internal ulong Categories;
}
