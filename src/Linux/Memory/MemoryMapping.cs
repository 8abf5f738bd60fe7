using Fleet.Linux.Interop;

namespace Fleet.Linux.Memory;

/// <summary>
/// A mapping in this process (mmap(2)), readable and writable. Never read guest memory through a pointer to it: a poisoned
/// page ends the process. <see cref="ProcessMemory"/> answers EFAULT instead.
/// </summary>
public sealed class MemoryMapping : IDisposable
{
    private readonly int _flags;
    private readonly FileDescriptor? _file;
    private readonly long _fileOffset;
    private nint _address;
    private bool _dontFork;

    private MemoryMapping(nint address, long bytes, int flags, FileDescriptor? file, long fileOffset)
    {
        _address = address;
        Bytes = bytes;
        (_flags, _file, _fileOffset) = (flags, file, fileOffset);
    }

    public ulong Address => (ulong)_address;

    public long Bytes { get; }

    /// <summary>MAP_SHARED mapping of a file; unless it is asked for nothing is reserved, so it may be larger than the machine's memory.</summary>
    /// <param name="reserve">Of huge pages: take them now (ENOMEM where they are not free), so that none is missing later.</param>
    public static MemoryMapping MapShared(FileDescriptor file, long offset, long bytes, bool reserve = false) =>
        Map(Constants.MAP_SHARED | (reserve ? 0 : Constants.MAP_NORESERVE), file, offset, bytes);

    /// <summary>Private anonymous memory.</summary>
    /// <param name="hugePages">Of huge pages of 2 MiB (MAP_HUGETLB); none is reserved, so that one may be missing when it is touched.</param>
    public static MemoryMapping MapAnonymous(long bytes, bool hugePages = false) =>
        Map(Constants.MAP_PRIVATE | Constants.MAP_ANONYMOUS | Constants.MAP_NORESERVE | (hugePages ? Constants.MAP_HUGETLB | Constants.MAP_HUGE_2MB : 0), null, 0, bytes);

    /// <summary>madvise(2) on part of the mapping.</summary>
    /// <param name="offset">From the start of the mapping, page-aligned.</param>
    public void Advise(long offset, long bytes, MemoryAdvice advice)
    {
        LinuxException.Check(Libc.madvise(_address + (nint)offset, (nuint)bytes, (int)advice), $"madvise {advice}");
        _dontFork |= advice == MemoryAdvice.DontFork;
    }

    /// <summary>
    /// Maps part of it anew, elsewhere, and moves that over the present one (mremap(2), MREMAP_FIXED): no thread finds the range unmapped, or
    /// mapped and not prepared. What the new mapping is registered with stays behind, unless the userfaultfd has UFFD_FEATURE_EVENT_REMAP;
    /// its poison markers come along.
    /// </summary>
    /// <param name="prepare">Does to the new mapping, at the address given, what must be so from the first access on.</param>
    public void Replace(long offset, long bytes, Action<ulong> prepare)
    {
        using var fresh = Map(_flags | Constants.MAP_NORESERVE, _file, _fileOffset + offset, bytes);
        if (_dontFork)
        {
            fresh.Advise(0, bytes, MemoryAdvice.DontFork);
        }

        prepare(fresh.Address);
        var moved = Libc.mremap(fresh._address, (nuint)bytes, (nuint)bytes, Constants.MREMAP_MAYMOVE | Constants.MREMAP_FIXED, _address + (nint)offset);
        if (moved == -1)
        {
            throw LinuxException.FromLastError("mremap");
        }

        fresh._address = 0;
    }

    public void Dispose()
    {
        var address = Interlocked.Exchange(ref _address, 0);
        if (address != 0)
        {
            _ = Libc.munmap(address, (nuint)Bytes);
        }
    }

    /// <summary>
    /// Where a large mapping is wanted: at a multiple of 2 MiB, or the kernel cannot make huge pages of it. For files on shmem it sees to that itself
    /// only where they are meant to be huge. A hint (mmap(2)): if another thread takes the room first, the mapping lies elsewhere.
    /// </summary>
    private static nint Place(long bytes)
    {
        const long HugePage = 2 << 20;
        if (bytes < HugePage)
        {
            return 0;
        }

        var room = (nuint)(bytes + HugePage);
        var free = Libc.mmap(0, room, Constants.PROT_READ | Constants.PROT_WRITE, Constants.MAP_PRIVATE | Constants.MAP_ANONYMOUS | Constants.MAP_NORESERVE, -1, 0);
        if (free == -1)
        {
            return 0;
        }

        _ = Libc.munmap(free, room);
        return (nint)((free + HugePage - 1) & ~(HugePage - 1));
    }

    private static MemoryMapping Map(int flags, FileDescriptor? file, long offset, long bytes)
    {
        var address = Libc.mmap(Place(bytes), (nuint)bytes, Constants.PROT_READ | Constants.PROT_WRITE, flags, file?.Number ?? -1, offset);
        return address != -1 ? new MemoryMapping(address, bytes, flags, file, offset) : throw LinuxException.FromLastError("mmap");
    }
}

/// <summary>Advice values of madvise(2), by their native names.</summary>
public enum MemoryAdvice
{
    DontNeed = 4,
    Remove = 9,
    DontFork = 10,
    HugePage = 14,
    NoHugePage = 15,
    Collapse = 25,
}
