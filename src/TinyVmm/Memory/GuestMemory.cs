using Fleet.Linux;
using Fleet.Linux.Memory;

namespace Fleet.TinyVmm.Memory;

/// <summary>
/// All of the guest's RAM. Managed code never holds a pointer into it: a load from a poisoned page would end the process,
/// whereas process_vm_readv and process_vm_writev answer EFAULT.
/// </summary>
public sealed class GuestMemory : IDisposable
{
    private readonly GuestRegion[] _regions;

    public GuestMemory(string vm, IReadOnlyList<MemoryRange> layout)
    {
        var made = new List<GuestRegion>();
        try
        {
            foreach (var range in layout)
            {
                made.Add(new GuestRegion(vm, made.Count, range));
            }
        }
        catch
        {
            made.ForEach(region => region.Dispose());
            throw;
        }

        _regions = [.. made];
    }

    /// <summary>Sorted by guest physical address, not overlapping.</summary>
    public IReadOnlyList<GuestRegion> Regions => _regions;

    /// <summary>The region that holds all of a range; null when there is none.</summary>
    public GuestRegion? Find(ulong guestPhysicalAddress, ulong bytes = 1)
    {
        foreach (var region in _regions)
        {
            var offset = guestPhysicalAddress - region.Range.GuestPhysicalAddress;
            if (guestPhysicalAddress >= region.Range.GuestPhysicalAddress && offset < region.Range.Bytes)
            {
                return bytes <= region.Range.Bytes - offset ? region : null;
            }
        }

        return null;
    }

    /// <summary>The guest physical address of an address in this process; null when it is no guest memory.</summary>
    public ulong? GuestPhysicalAddressOf(ulong hostVirtualAddress)
    {
        foreach (var region in _regions)
        {
            var offset = hostVirtualAddress - region.HostVirtualAddress;
            if (hostVirtualAddress >= region.HostVirtualAddress && offset < region.Range.Bytes)
            {
                return region.Range.GuestPhysicalAddress + offset;
            }
        }

        return null;
    }

    /// <summary>Writes at set-up, through the kernel.</summary>
    /// <exception cref="LinuxException">The range is not RAM, or trapped (EFAULT).</exception>
    public void Write(ulong guestPhysicalAddress, ReadOnlySpan<byte> bytes)
    {
        var region = Find(guestPhysicalAddress, (ulong)bytes.Length) ?? throw new LinuxException("write guest memory", Errno.EFAULT);
        var address = region.HostVirtualAddress + (guestPhysicalAddress - region.Range.GuestPhysicalAddress);
        var error = ProcessMemory.Write(Environment.ProcessId, address, bytes);
        if (error != Errno.None)
        {
            throw new LinuxException("process_vm_writev", error);
        }
    }

    public void Dispose()
    {
        foreach (var region in _regions)
        {
            region.Dispose();
        }
    }
}
