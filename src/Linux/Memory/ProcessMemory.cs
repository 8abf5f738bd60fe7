using Fleet.Linux.Interop;

namespace Fleet.Linux.Memory;

/// <summary>
/// Reads and writes memory through the kernel (process_vm_readv(2)), of this process or another: a poisoned page is EFAULT
/// (marker) or EIO/EHWPOISON (hardware), never a signal.
/// </summary>
public static unsafe class ProcessMemory
{
    /// <summary>Fills the whole buffer from the process's memory.</summary>
    /// <returns>None, or why not all of it could be read; the buffer's content is then undefined.</returns>
    public static Errno Read(int pid, ulong address, Span<byte> buffer)
    {
        fixed (byte* bytes = buffer)
        {
            var local = new IoVector { Base = (nint)bytes, Length = (nuint)buffer.Length };
            var remote = new IoVector { Base = (nint)address, Length = (nuint)buffer.Length };
            return Result(Libc.process_vm_readv(pid, &local, 1, &remote, 1, 0), buffer.Length);
        }
    }

    /// <summary>Writes the whole buffer into the process's memory.</summary>
    /// <returns>None, or why not all of it could be written.</returns>
    public static Errno Write(int pid, ulong address, ReadOnlySpan<byte> buffer)
    {
        fixed (byte* bytes = buffer)
        {
            var local = new IoVector { Base = (nint)bytes, Length = (nuint)buffer.Length };
            var remote = new IoVector { Base = (nint)address, Length = (nuint)buffer.Length };
            return Result(Libc.process_vm_writev(pid, &local, 1, &remote, 1, 0), buffer.Length);
        }
    }

    // A transfer that crosses into a bad page is short; the pages before it were done.
    private static Errno Result(nint done, int wanted) =>
        done == wanted ? Errno.None : done < 0 ? LinuxException.LastError : Errno.EFAULT;
}
