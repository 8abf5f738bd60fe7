using Fleet.Linux.Interop;

namespace Fleet.Linux.Memory;

/// <summary>
/// A mapping in this process (mmap(2)), readable and writable. Never read guest memory through a pointer to it: a poisoned
/// page ends the process. <see cref="ProcessMemory"/> answers EFAULT instead.
/// </summary>
public sealed class MemoryMapping : IDisposable
{
    private nint _address;

    private MemoryMapping(nint address, long bytes)
    {
        _address = address;
        Bytes = bytes;
    }

    public ulong Address => (ulong)_address;

    public long Bytes { get; }

    /// <summary>MAP_SHARED mapping of a file; no swap space is reserved, so it may be larger than the machine's memory.</summary>
    public static MemoryMapping MapShared(FileDescriptor file, long offset, long bytes) =>
        Map(Constants.MAP_SHARED | Constants.MAP_NORESERVE, file.Number, offset, bytes);

    public static MemoryMapping MapAnonymous(long bytes) =>
        Map(Constants.MAP_PRIVATE | Constants.MAP_ANONYMOUS | Constants.MAP_NORESERVE, -1, 0, bytes);

    /// <summary>madvise(2) on part of the mapping.</summary>
    /// <param name="offset">From the start of the mapping, page-aligned.</param>
    public void Advise(long offset, long bytes, MemoryAdvice advice) =>
        LinuxException.Check(Libc.madvise(_address + (nint)offset, (nuint)bytes, (int)advice), $"madvise {advice}");

    public void Dispose()
    {
        var address = Interlocked.Exchange(ref _address, 0);
        if (address != 0)
        {
            _ = Libc.munmap(address, (nuint)Bytes);
        }
    }

    private static MemoryMapping Map(int flags, int fd, long offset, long bytes)
    {
        var address = Libc.mmap(0, (nuint)bytes, Constants.PROT_READ | Constants.PROT_WRITE, flags, fd, offset);
        return address != -1 ? new MemoryMapping(address, bytes) : throw LinuxException.FromLastError("mmap");
    }
}

/// <summary>Advice values of madvise(2), by their native names.</summary>
public enum MemoryAdvice
{
    DontNeed = 4,
    Remove = 9,
    DontFork = 10,
    NoHugePage = 15,
    Collapse = 25,
}
