using Fleet.Linux;
using Fleet.TinyVmm.Memory;

namespace Fleet.TinyVmm.Migration;

/// <summary>Writes what a stream delivers into RAM that holds nothing yet. A page that is poisoned here already stays so.</summary>
internal sealed class PageWriter(GuestMemory memory)
{
    private const int PageBytes = (int)MemoryLayout.PageBytes;

    /// <returns>The frames that could not be written.</returns>
    /// <exception cref="LinuxException">An access failed for another reason than poison.</exception>
    public List<long> Write(long start, byte[] bytes)
    {
        var failed = new List<long>();
        if (TryWrite(start, bytes))
        {
            return failed;
        }

        for (var i = 0; i < bytes.Length / PageBytes; i++)
        {
            if (!TryWrite(start + i, bytes.AsSpan(i * PageBytes, PageBytes)))
            {
                failed.Add(start + i);
            }
        }

        return failed;
    }

    private bool TryWrite(long frame, ReadOnlySpan<byte> bytes)
    {
        var error = memory.TryWrite((ulong)frame * MemoryLayout.PageBytes, bytes);
        return error == Errno.None || (GuestMemory.IsUnreadable(error) ? false : throw new LinuxException("process_vm_writev", error));
    }
}
