using Fleet.Linux.Interop;

namespace Fleet.Linux.Memory;

/// <summary>Flags of the host's page frames: /proc/kpageflags (Documentation/admin-guide/mm/pagemap.rst, linux/kernel-page-flags.h). Needs root.</summary>
public sealed unsafe class KernelPageFlags : IDisposable
{
    internal const int KPF_HUGE = 17;
    internal const int KPF_HWPOISON = 19;
    private const ulong HugeFrames = 512;

    private readonly FileDescriptor _fd;

    private KernelPageFlags(FileDescriptor fd) => _fd = fd;

    /// <exception cref="LinuxException">ENOENT: the kernel has no CONFIG_PROC_PAGE_MONITOR; EACCES: not root.</exception>
    public static KernelPageFlags Open(string path = "/proc/kpageflags") => new(FileDescriptor.OpenRead(path));

    /// <summary>
    /// Whether memory_failure() took the frame out of use. Of a hugetlb page only the first frame carries the flag: the whole page is lost.
    /// </summary>
    /// <param name="frame">Physical, in 4 KiB units.</param>
    public bool IsHardwarePoisoned(ulong frame)
    {
        var flags = Read(frame);
        return Has(flags, KPF_HWPOISON) || (Has(flags, KPF_HUGE) && Has(Read(frame & ~(HugeFrames - 1)), KPF_HWPOISON));
    }

    public void Dispose() => _fd.Dispose();

    private static bool Has(ulong flags, int bit) => (flags & (1UL << bit)) != 0;

    // A frame behind the end of memory reads as nothing: it has no flags.
    private ulong Read(ulong frame)
    {
        ulong flags = 0;
        LinuxException.Check(Libc.pread(_fd.Number, &flags, sizeof(ulong), (long)(frame * sizeof(ulong))), "read kpageflags");
        return flags;
    }
}
