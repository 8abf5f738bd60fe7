using Fleet.Linux.Memory;

namespace Fleet.TinyVmm.Memory;

/// <summary>One piece of guest RAM: a memfd, mapped shared, sparse until the guest writes to it.</summary>
public sealed class GuestRegion : IDisposable
{
    private readonly MemoryFile _file;
    private readonly MemoryMapping _mapping;

    /// <exception cref="Linux.LinuxException">memfd_create, ftruncate, mmap or madvise failed.</exception>
    public GuestRegion(string vm, int index, MemoryRange range)
    {
        Range = range;
        _file = MemoryFile.Create($"{vm}-ram{index}", (long)range.Bytes);
        try
        {
            _mapping = MemoryMapping.MapShared(_file.Descriptor, 0, (long)range.Bytes);

            // A child of fork would inherit the mapping but not its poison markers (FACTS: shmem), and could read zeros.
            _mapping.Advise(0, (long)range.Bytes, MemoryAdvice.DontFork);
        }
        catch
        {
            _mapping?.Dispose();
            _file.Dispose();
            throw;
        }
    }

    public MemoryRange Range { get; }

    public ulong HostVirtualAddress => _mapping.Address;

    /// <summary>The backing's descriptor number in this process.</summary>
    public int MemfdNumber => _file.Descriptor.Number;

    /// <summary>Gives pages back to the host, as a balloon does: they read as zeros afterwards, unless something traps them.</summary>
    public void Discard(ulong guestPhysicalAddress, ulong bytes) =>
        _file.PunchHole((long)(guestPhysicalAddress - Range.GuestPhysicalAddress), (long)bytes);

    /// <summary>Takes pages out of this process's page table, and leaves them in the backing memory. Poison markers are lost with it.</summary>
    public void Unmap(ulong guestPhysicalAddress, ulong bytes) =>
        _mapping.Advise((long)(guestPhysicalAddress - Range.GuestPhysicalAddress), (long)bytes, MemoryAdvice.DontNeed);

    public void Dispose()
    {
        _mapping.Dispose();
        _file.Dispose();
    }
}
