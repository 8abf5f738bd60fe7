using System.Buffers.Binary;

namespace Fleet.TinyVmm.Migration;

internal enum StreamRecordKind : byte
{
    /// <summary>The pages follow.</summary>
    Data = (byte)'P',

    /// <summary>The pages hold zeros; they were read, and are so.</summary>
    Zero = (byte)'Z',

    /// <summary>The pages could not, or must not, be read.</summary>
    Undelivered = (byte)'U',

    /// <summary>All of RAM was said; the end message follows.</summary>
    End = (byte)'E',
}

/// <summary>
/// Heads a part of the stream. Records follow each other in the order of the layout, without a gap and without overlap, so that whatever
/// is missing shows.
/// </summary>
/// <param name="Start">First frame.</param>
/// <param name="Count">Frames; in a data record at most <see cref="MaximumDataFrames"/>.</param>
internal readonly record struct StreamRecord(StreamRecordKind Kind, long Start, long Count)
{
    public const int Bytes = 1 + sizeof(long) + sizeof(long);
    public const int MaximumDataFrames = 256;

    public void Write(Span<byte> to)
    {
        to[0] = (byte)Kind;
        BinaryPrimitives.WriteInt64LittleEndian(to[1..], Start);
        BinaryPrimitives.WriteInt64LittleEndian(to[9..], Count);
    }

    public static StreamRecord Read(ReadOnlySpan<byte> from) =>
        new((StreamRecordKind)from[0], BinaryPrimitives.ReadInt64LittleEndian(from[1..]), BinaryPrimitives.ReadInt64LittleEndian(from[9..]));
}
