using Fleet.Linux.Interop;

namespace Fleet.Linux.Memory;

/// <summary>/proc/PID/pagemap: what the page tables of a process hold (Documentation/admin-guide/mm/pagemap.rst). Needs root for other processes.</summary>
public sealed unsafe class PageMap : IDisposable
{
    private const int PageBytes = 4096;
    private readonly FileDescriptor _fd;

    private PageMap(FileDescriptor fd) => _fd = fd;

    internal FileDescriptor Descriptor => _fd;

    /// <exception cref="LinuxException">ENOENT: no such process; EACCES or EPERM: not permitted.</exception>
    public static PageMap Open(int pid) => new(FileDescriptor.OpenRead(FormattableString.Invariant($"/proc/{pid}/pagemap")));

    /// <summary>Entries of the 4 KiB pages from the address on.</summary>
    /// <exception cref="LinuxException">The process's address space is gone, or the address lies outside it.</exception>
    public void Read(ulong address, Span<PageMapEntry> entries)
    {
        fixed (PageMapEntry* first = entries)
        {
            var wanted = (nuint)(entries.Length * sizeof(PageMapEntry));
            var done = Libc.pread(_fd.Number, first, wanted, (long)(address / PageBytes * sizeof(ulong)));
            if (done < 0)
            {
                throw LinuxException.FromLastError("read pagemap");
            }

            if ((nuint)done != wanted)
            {
                // The kernel answers 0 bytes once the address space is gone (the process has ended).
                throw new LinuxException("read pagemap", Errno.ESRCH);
            }
        }
    }

    public PageMapEntry Read(ulong address)
    {
        PageMapEntry entry = default;
        Read(address, new Span<PageMapEntry>(ref entry));
        return entry;
    }

    public void Dispose() => _fd.Dispose();
}

/// <summary>One 64-bit entry of pagemap.</summary>
public readonly struct PageMapEntry(ulong bits) : IEquatable<PageMapEntry>
{
    private readonly ulong _bits = bits;

    public bool IsPresent => (_bits & (1UL << 63)) != 0;

    /// <summary>A swap entry or another entry that is not present but not empty.</summary>
    public bool IsSwap => (_bits & (1UL << 62)) != 0;

    public int SwapType => (int)(_bits & 0x1f);

    public ulong SwapOffset => (_bits >> 5) & ((1UL << 50) - 1);

    /// <summary>
    /// The marker of UFFDIO_POISON: a PTE marker (swap type 31, SWP_PTE_MARKER) with offset PTE_MARKER_POISONED (2), Linux 6.6+.
    /// hugetlb mappings show 0 instead and cannot be told from an empty entry here.
    /// </summary>
    public bool IsPoisonMarker => !IsPresent && IsSwap && SwapType == 31 && (SwapOffset & 2) != 0;

    /// <summary>
    /// The entry that memory_failure() leaves, or another with a frame for its offset (a page under migration): the swap types behind those of
    /// swap files, whose first is SWP_HWPOISON. That one is 30 less the types that the kernel's configuration adds: 27 with migration, 23 to 25
    /// with device memory too (include/linux/swap.h). Only <see cref="KernelPageFlags"/> of the frame tell; hugetlb mappings show 0 instead.
    /// </summary>
    public bool MayBeHardwarePoison => !IsPresent && IsSwap && SwapType is >= 23 and <= 30;

    /// <summary>Whether it is memory_failure()'s: the frame in it carries the kernel's hardware-poison flag.</summary>
    /// <exception cref="LinuxException">The flags cannot be read.</exception>
    public bool IsHardwarePoison(KernelPageFlags flags) => MayBeHardwarePoison && flags.IsHardwarePoisoned(SwapOffset);

    /// <summary>No entry at all: an access is a fault that the kernel, or a userfaultfd, resolves.</summary>
    public bool IsEmpty => !IsPresent && !IsSwap;

    public bool Equals(PageMapEntry other) => _bits == other._bits;

    public override bool Equals(object? obj) => obj is PageMapEntry other && Equals(other);

    public override int GetHashCode() => _bits.GetHashCode();

    public static bool operator ==(PageMapEntry left, PageMapEntry right) => left.Equals(right);

    public static bool operator !=(PageMapEntry left, PageMapEntry right) => !left.Equals(right);

    public override string ToString() => FormattableString.Invariant($"0x{_bits:x16}");
}
