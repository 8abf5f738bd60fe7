using Fleet.Linux.Interop;

namespace Fleet.Linux.Memory;

/// <summary>Backing memory that is a file without a name: memfd_create(2), or one received from another process.</summary>
public sealed class MemoryFile : IDisposable
{
    /// <summary>Takes ownership of the descriptor.</summary>
    public MemoryFile(FileDescriptor descriptor) => Descriptor = descriptor;

    public FileDescriptor Descriptor { get; }

    /// <summary>A new sparse file on shmem, or on hugetlbfs with 2 MiB pages.</summary>
    /// <param name="name">Shown in /proc as <c>/memfd:name</c>; at most 249 bytes.</param>
    /// <param name="bytes">Length; a multiple of the page size.</param>
    /// <exception cref="LinuxException">EMFILE, ENOMEM, or ENOSPC where huge pages are used up.</exception>
    public static MemoryFile Create(string name, long bytes, bool hugePages = false)
    {
        var flags = Constants.MFD_CLOEXEC | (hugePages ? Constants.MFD_HUGETLB | Constants.MFD_HUGE_2MB : 0);
        var file = new MemoryFile(new FileDescriptor(LinuxException.Check(Libc.memfd_create(name, flags), "memfd_create")));
        if (Libc.ftruncate(file.Descriptor.Number, bytes) < 0)
        {
            var error = LinuxException.FromLastError("ftruncate");
            file.Dispose();
            throw error;
        }

        return file;
    }

    /// <summary>fallocate(2) FALLOC_FL_PUNCH_HOLE: frees the pages and removes them from every page table that maps them.</summary>
    public void PunchHole(long offset, long bytes) =>
        LinuxException.Check(
            Libc.fallocate(Descriptor.Number, Constants.FALLOC_FL_PUNCH_HOLE | Constants.FALLOC_FL_KEEP_SIZE, offset, bytes),
            "fallocate PUNCH_HOLE");

    /// <summary>
    /// Reads one byte through the file, whoever has the page mapped. A hole reads as zero and stays one.
    /// </summary>
    /// <returns>None, or EIO (EHWPOISON) for a page that memory_failure() took away: it stays in the page cache, unreadable.</returns>
    public unsafe Errno Probe(long offset)
    {
        byte value;
        return Libc.pread(Descriptor.Number, &value, 1, offset) >= 0 ? Errno.None : LinuxException.LastError;
    }

    /// <summary>The next stretch from the offset on in which the file has pages (lseek SEEK_DATA, SEEK_HOLE); null when there is none.</summary>
    public (long Start, long End)? NextData(long offset)
    {
        var start = Libc.lseek(Descriptor.Number, offset, Constants.SEEK_DATA);
        if (start < 0)
        {
            return LinuxException.LastError == Errno.ENXIO ? null : throw LinuxException.FromLastError("lseek SEEK_DATA");
        }

        var end = Libc.lseek(Descriptor.Number, start, Constants.SEEK_HOLE);
        return end >= 0 ? (start, end) : throw LinuxException.FromLastError("lseek SEEK_HOLE");
    }

    public void Dispose() => Descriptor.Dispose();
}
