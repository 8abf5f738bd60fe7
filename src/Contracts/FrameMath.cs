namespace Fleet.Contracts;

/// <summary>
/// Arithmetic on guest frame numbers. A frame number is a guest physical address divided by 4096, whatever the page size;
/// a page is <c>(frame, shift)</c>, naturally aligned, with shift 12 (4 KiB), 21 (2 MiB) or 30 (1 GiB).
/// </summary>
public static class FrameMath
{
    public const int FrameShift = 12;
    public const int FrameBytes = 1 << FrameShift;

    /// <summary>52 bits of guest physical address (the architectural most on x86-64) in 4 KiB frames; JSON-safe (below 2^53).</summary>
    public const long MaximumFrame = (1L << (52 - FrameShift)) - 1;

    public static bool IsPageShift(int shift) => shift is 12 or 21 or 30;

    /// <summary>Number of 4 KiB frames a page of this shift covers.</summary>
    public static long FramesOf(int shift) => 1L << (shift - FrameShift);

    public static bool IsAligned(long frame, int shift) => (frame & (FramesOf(shift) - 1)) == 0;

    public static ulong AddressOf(long frame) => (ulong)frame << FrameShift;

    public static long FrameOf(ulong guestPhysicalAddress) => (long)(guestPhysicalAddress >> FrameShift);

    /// <summary>First frame of the page of this shift that holds the frame.</summary>
    public static long PageFrame(long frame, int shift) => frame & ~(FramesOf(shift) - 1);

    /// <summary>Whether page (outer, outerShift) covers every frame of page (inner, innerShift).</summary>
    public static bool Covers(long outer, int outerShift, long inner, int innerShift) =>
        outerShift >= innerShift && PageFrame(inner, outerShift) == outer;
}
