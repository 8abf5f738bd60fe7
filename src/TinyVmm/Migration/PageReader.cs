using Fleet.Linux;
using Fleet.TinyVmm.Memory;

namespace Fleet.TinyVmm.Migration;

/// <summary>A block of RAM as it was read: each page has data, is zero, or could not be read.</summary>
internal sealed record PageBlock(byte[] Bytes, StreamRecordKind[] Kinds);

/// <summary>Reads RAM for a stream. What cannot or must not be read is said so, and never becomes zeros.</summary>
internal sealed class PageReader(GuestMemory memory, Func<FrameRanges> skip)
{
    private const int PageBytes = (int)MemoryLayout.PageBytes;

    /// <exception cref="LinuxException">An access failed for another reason than poison.</exception>
    public PageBlock Read(long start, int count)
    {
        var block = new PageBlock(new byte[count * PageBytes], new StreamRecordKind[count]);
        var skipped = skip();
        var none = !Enumerable.Range(0, count).Any(i => skipped.Contains(start + i));
        var whole = none && TryRead(start, block.Bytes);
        for (var i = 0; i < count; i++)
        {
            var page = block.Bytes.AsSpan(i * PageBytes, PageBytes);
            block.Kinds[i] = !whole && (skipped.Contains(start + i) || !TryRead(start + i, page)) ? StreamRecordKind.Undelivered
                : page.ContainsAnyExcept((byte)0) ? StreamRecordKind.Data
                : StreamRecordKind.Zero;
        }

        return block;
    }

    private bool TryRead(long frame, Span<byte> bytes)
    {
        var error = memory.TryRead((ulong)frame * MemoryLayout.PageBytes, bytes);
        return error == Errno.None || (GuestMemory.IsUnreadable(error) ? false : throw new LinuxException("process_vm_readv", error));
    }
}
