using Fleet.Contracts;

namespace Fleet.HostAgent.Enforce;

/// <summary>Zeros to copy from, where UFFDIO_ZEROPAGE is not to be had.</summary>
internal static class ZeroPages
{
    private static readonly byte[] Small = new byte[FrameMath.FrameBytes];

    // Never written to: it costs address space, and no memory. UFFDIO_COPY asks nothing of the source's alignment.
    private static readonly Lazy<byte[]> Huge = new(() => new byte[2 << 20]);

    public static ReadOnlySpan<byte> Of(int bytes) => bytes == Small.Length ? Small : Huge.Value.AsSpan(0, bytes);
}
