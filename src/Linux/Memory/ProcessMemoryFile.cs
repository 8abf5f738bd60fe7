using Fleet.Linux.Interop;

namespace Fleet.Linux.Memory;

/// <summary>
/// /proc/PID/mem (proc_pid_mem(5)). Unlike process_vm_readv(2) a read through it does not wait for a userfaultfd: a page that is trapped and
/// one that is poisoned both answer EIO at once (mm/memory.c, __access_remote_vm). Needs the right to ptrace the process.
/// </summary>
public sealed unsafe class ProcessMemoryFile : IDisposable
{
    private readonly FileDescriptor _fd;

    private ProcessMemoryFile(FileDescriptor fd) => _fd = fd;

    /// <exception cref="LinuxException">ENOENT: no such process; EACCES or EPERM: not permitted.</exception>
    public static ProcessMemoryFile Open(int pid) => new(FileDescriptor.OpenRead(FormattableString.Invariant($"/proc/{pid}/mem")));

    /// <summary>Reads one byte. A page that nobody has touched yet gets its zeros by it, as by any other access.</summary>
    /// <returns>None, or why it cannot be read.</returns>
    public Errno Peek(ulong address)
    {
        byte value = 0;
        return Libc.pread(_fd.Number, &value, 1, (long)address) switch
        {
            1 => Errno.None,
            // The address space is gone (the process has ended).
            0 => Errno.ESRCH,
            _ => LinuxException.LastError,
        };
    }

    public void Dispose() => _fd.Dispose();
}
