using Fleet.Linux.Memory;
using Fleet.Linux.Userfaultfd;

namespace Fleet.TinyVmm.Memory;

/// <summary>One piece of guest RAM, sparse until the guest writes to it.</summary>
public sealed class GuestRegion : IDisposable
{
    private readonly MemoryFile? _file;
    private readonly MemoryMapping _mapping;

    /// <exception cref="Linux.LinuxException">memfd_create, ftruncate, mmap or madvise failed; ENOMEM of mmap: not enough huge pages are free.</exception>
    public GuestRegion(string vm, int index, MemoryRange range, MemoryBacking backing = MemoryBacking.Memfd)
    {
        (Range, Backing) = (range, backing);
        var huge = backing == MemoryBacking.Hugetlb;
        _file = backing == MemoryBacking.Anonymous ? null : MemoryFile.Create($"{vm}-ram{index}", (long)range.Bytes, huge);
        try
        {
            _mapping = _file is null
                ? MemoryMapping.MapAnonymous((long)range.Bytes)
                : MemoryMapping.MapShared(_file.Descriptor, 0, (long)range.Bytes, reserve: huge);

            // A child of fork would inherit the mapping but not its poison markers (FACTS: shmem), and could read zeros.
            _mapping.Advise(0, (long)range.Bytes, MemoryAdvice.DontFork);
        }
        catch
        {
            _mapping?.Dispose();
            _file?.Dispose();
            throw;
        }
    }

    public MemoryRange Range { get; }

    public MemoryBacking Backing { get; }

    /// <summary>Smallest piece that can be lost: a poisoned frame takes the whole page with it.</summary>
    public ulong PageBytes => Backing == MemoryBacking.Hugetlb ? MemoryLayout.HugePageBytes : MemoryLayout.PageBytes;

    public ulong HostVirtualAddress => _mapping.Address;

    /// <summary>The backing's descriptor number in this process; null for anonymous memory.</summary>
    public int? MemfdNumber => _file?.Descriptor.Number;

    /// <summary>
    /// Gives pages back to the host, as a balloon does: they read as zeros afterwards, unless something traps them. In shared memory
    /// of 4 KiB pages markers stay; elsewhere they go, and only what is registered is still trapped (FACTS 3).
    /// </summary>
    public void Discard(ulong guestPhysicalAddress, ulong bytes)
    {
        var offset = (long)(guestPhysicalAddress - Range.GuestPhysicalAddress);
        if (_file is { } file)
        {
            file.PunchHole(offset, (long)bytes);
        }
        else
        {
            _mapping.Advise(offset, (long)bytes, MemoryAdvice.DontNeed);
        }
    }

    /// <summary>Takes pages out of the page table (MADV_DONTNEED): of a file the content stays, of anonymous memory it goes.</summary>
    public void ZapDontNeed(ulong guestPhysicalAddress, ulong bytes) =>
        _mapping.Advise((long)(guestPhysicalAddress - Range.GuestPhysicalAddress), (long)bytes, MemoryAdvice.DontNeed);

    /// <summary>Puts fresh, registered and poisoned memory in place of the pages, in one step.</summary>
    public void ZapRemap(ulong guestPhysicalAddress, ulong bytes, UserfaultfdHandle userfaultfd) =>
        _mapping.Replace((long)(guestPhysicalAddress - Range.GuestPhysicalAddress), (long)bytes, fresh =>
        {
            userfaultfd.Register(fresh, bytes, _file is null ? UffdRegisterMode.Missing : UffdRegisterMode.Missing | UffdRegisterMode.Minor);
            var result = userfaultfd.Poison(fresh, bytes);
            if (!result.Succeeded)
            {
                throw new Linux.LinuxException("UFFDIO_POISON", result.Error);
            }
        });

    public void Dispose()
    {
        _mapping.Dispose();
        _file?.Dispose();
    }
}
