using Fleet.Contracts;
using Fleet.Contracts.Vms;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>Brings together what the control plane knows of a VM's memory, what QEMU says, and what the kernel has mapped in its process.</summary>
public static class QemuLayout
{
    // ROM and the VGA window cover RAM below 1 MiB; SMM's segment (TSEG) may cover the end of the RAM below 4 GiB. What is covered is RAM of
    // the same block all the same.
    private const ulong LegacyEnd = 1 << 20;
    private const ulong MostCovered = 64 << 20;

    /// <summary>Where QEMU has each region.</summary>
    /// <exception cref="QemuRejectedException"><c>layout-mismatch</c>.</exception>
    public static IReadOnlyList<(MemoryRegion Region, ulong HostVirtualAddress)> Place(IReadOnlyList<MemoryRegion> memory, QemuRam ram)
    {
        var known = memory.Sum(region => region.Bytes);
        if (known != ram.Bytes)
        {
            throw Mismatch($"the VM has {known} bytes of RAM in the control plane, and {ram.Bytes} in QEMU");
        }

        return [.. memory.Select(region => (region, Place(region, ram)))];
    }

    /// <summary>The regions with what the kernel says is behind them.</summary>
    /// <exception cref="QemuRejectedException"><c>not-mapped</c>, <c>unsupported-backing</c>.</exception>
    public static GuestLayout Open(IReadOnlyList<(MemoryRegion Region, ulong HostVirtualAddress)> placed, ProcessIdentity vmm, Pidfd pidfd)
    {
        var maps = ProcessMaps.Read(vmm.Pid).OrderBy(map => map.Start).ToList();
        var regions = new List<GuestRegion>();
        try
        {
            foreach (var (region, host) in placed)
            {
                var first = RequireMapped(maps, host, region.Bytes);
                var backing = OpenBacking(first, (long)(host - first.Start), vmm, pidfd);
                regions.Add(new GuestRegion(Parse(region), region.Bytes, host, region.PageBytes, backing));
                RequirePages(region, backing);
            }

            return new GuestLayout(regions);
        }
        catch
        {
            regions.ForEach(region => region.Backing.Dispose());
            throw;
        }
    }

    private static ulong Place(MemoryRegion region, QemuRam ram)
    {
        var start = Parse(region);
        var end = start + (ulong)region.Bytes;
        var pieces = ram.Pieces.Where(piece => piece.Start < end && piece.End > start).ToList();
        if (pieces.Count == 0)
        {
            throw Mismatch($"QEMU has no RAM at 0x{start:x}");
        }

        var main = pieces.MaxBy(piece => piece.End - piece.Start)!;
        var host = main.HostVirtualAddress - (main.Start - start);
        foreach (var piece in pieces.Where(piece => piece.Name == main.Name || piece.End > LegacyEnd))
        {
            if (piece.Name != main.Name || piece.Start < start || piece.End > end || piece.HostVirtualAddress != host + (piece.Start - start))
            {
                throw Mismatch($"QEMU has RAM from 0x{piece.Start:x} to 0x{piece.End:x} ({piece.Name}), which is not within the VM's region at 0x{start:x} as one piece");
            }
        }

        var own = pieces.Where(piece => piece.Name == main.Name).ToList();
        return own.Min(piece => piece.Start) - start <= (start == 0 ? LegacyEnd : 0) && end - own.Max(piece => piece.End) <= MostCovered
            ? host
            : throw Mismatch($"QEMU's RAM in the region at 0x{start:x} ends at 0x{own.Max(piece => piece.End):x}, not at 0x{end:x}");
    }

    private static ProcessMap RequireMapped(List<ProcessMap> maps, ulong host, long bytes)
    {
        var end = host + (ulong)bytes;
        ProcessMap? first = null;
        var at = host;
        foreach (var map in maps.Where(map => map.End > host && map.Start < end))
        {
            first ??= map;
            if (map.Start > at || map.File != first.File || map.IsShared != first.IsShared
                || (first.File.Inode != 0 && map.Offset - (long)map.Start != first.Offset - (long)first.Start))
            {
                break;
            }

            at = map.End;
        }

        return first is not null && at >= end
            ? first
            : throw new QemuRejectedException("not-mapped", $"the process at the QMP socket has no guest memory at {HexAddress.Format(at)} as QMP says; is it QEMU itself that listens there?");
    }

    private static GuestBacking OpenBacking(ProcessMap map, long offset, ProcessIdentity vmm, Pidfd pidfd)
    {
        if (map.File.Inode == 0 && !map.IsShared)
        {
            return GuestBacking.Anonymous();
        }

        if (!map.IsShared)
        {
            throw new QemuRejectedException("unsupported-backing", $"{map.Path} is mapped privately; use share=on, or memory without a file");
        }

        foreach (var number in DescriptorsOf(vmm.Pid, map.Path))
        {
            if (TryOpen(pidfd, number, map.File) is { } file)
            {
                try
                {
                    return GuestBacking.OfFile(file, number, map.Offset + offset);
                }
                catch (ArgumentException exception)
                {
                    file.Dispose();
                    throw new QemuRejectedException("unsupported-backing", $"{map.Path}: {exception.Message}");
                }
            }
        }

        throw new QemuRejectedException("unsupported-backing", $"QEMU has no descriptor for {map.Path}; use memory-backend-memfd");
    }

    private static void RequirePages(MemoryRegion region, GuestBacking backing)
    {
        var pages = backing.File is { } file ? FileDescriptorInfo.MemoryKind(file.Descriptor).PageBytes : FrameMath.FrameBytes;
        if (pages != region.PageBytes)
        {
            throw new QemuRejectedException("layout-mismatch", $"the region at {region.GuestPhysicalAddress} has pages of {pages} bytes, and {region.PageBytes} in the control plane");
        }
    }

    private static IEnumerable<int> DescriptorsOf(int pid, string path) =>
        QemuDescriptors.Of(pid).Where(descriptor => descriptor.Link == path).Select(descriptor => descriptor.Number);

    private static MemoryFile? TryOpen(Pidfd pidfd, int number, FileIdentity wanted)
    {
        try
        {
            var descriptor = pidfd.GetFd(number);
            if (FileDescriptorInfo.Identity(descriptor) == wanted)
            {
                return new MemoryFile(descriptor);
            }

            descriptor.Dispose();
            return null;
        }
        catch (LinuxException exception) when (exception.Errno == Errno.EBADF)
        {
            return null;
        }
    }

    private static ulong Parse(MemoryRegion region) =>
        HexAddress.TryParse(region.GuestPhysicalAddress, out var address) ? address : throw Mismatch($"'{region.GuestPhysicalAddress}' is no address");

    private static QemuRejectedException Mismatch(string reason) => new("layout-mismatch", reason);
}
