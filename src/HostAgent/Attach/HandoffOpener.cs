using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.Attach;

/// <summary>Checks the descriptors of a handoff against the VMM process itself, and makes the attachment.</summary>
public static class HandoffOpener
{
    /// <param name="descriptors">On success owned by the attachment; on a rejection by the caller.</param>
    /// <param name="boundMemoryInstance">The memory instance that a process of this VM was bound to before; null when it is new here.</param>
    /// <exception cref="HandoffRejectedException">With a stable code.</exception>
    public static Attachment Open(
        HandoffMessage message, DesiredVm desired, Pidfd pidfd, IReadOnlyList<FileDescriptor> descriptors,
        Func<string, ProcessIdentity, long?> boundMemoryInstance)
    {
        var vmm = ProcessIdentity.Of(message.VmmPid);
        if (vmm is null || pidfd.HasExited())
        {
            throw new HandoffRejectedException("vmm-ended", "the VMM process has ended");
        }

        if (!UserfaultfdHandle.IsUserfaultfd(descriptors[0]))
        {
            throw new HandoffRejectedException("wrong-descriptor", "the first descriptor is not a userfaultfd");
        }

        var userfaultfd = new UserfaultfdHandle(descriptors[0]);
        var layout = new GuestLayout([.. message.Regions.Select(region => ToRegion(region, descriptors))]);
        RequireNumbers(message, pidfd, descriptors);
        if (!userfaultfd.IsNonBlocking)
        {
            throw new HandoffRejectedException("blocking-userfaultfd", "the userfaultfd must be made with O_NONBLOCK: the kernel tells of no event on another");
        }

        RequireMapped(layout, message.VmmPid);
        RequireFeatures(userfaultfd, layout);
        var bound = boundMemoryInstance(desired.Vm, vmm);
        if (bound is null)
        {
            // Not for a process seen before: the check would take an armed page's registration away.
            RequireSameProcess(userfaultfd, layout);
        }

        // A process holds the RAM of the memory instance it was first attached for, however often the VM is reset or made anew.
        return new Attachment(desired.Vm, bound ?? desired.MemoryInstance, vmm, pidfd, userfaultfd, message.Userfaultfd, layout)
        {
            HasBarrier = message.Capabilities?.Contains(VmmCapabilities.Barrier) == true,
        };
    }

    private static GuestRegion ToRegion(HandoffRegion region, IReadOnlyList<FileDescriptor> descriptors) =>
        new(
            HandoffValidator.ParseAddress(region.GuestPhysicalAddress),
            region.Bytes,
            HandoffValidator.ParseAddress(region.HostVirtualAddress),
            region.PageBytes,
            region.Memfd is { } index
                ? OpenBacking(descriptors[1 + index], region)
                : GuestBacking.Anonymous(region.PageBytes));

    private static GuestBacking OpenBacking(FileDescriptor descriptor, HandoffRegion region)
    {
        var (kind, pageBytes) = FileDescriptorInfo.MemoryKind(descriptor);
        return kind == MemoryFileKind.Other
            ? throw new HandoffRejectedException("wrong-descriptor", "a backing descriptor is neither a memfd nor a file on tmpfs or hugetlbfs")
            : pageBytes != region.PageBytes
            ? throw new HandoffRejectedException("wrong-descriptor", $"the pages of a backing have {pageBytes} bytes, not {region.PageBytes}")
            : GuestBacking.OfFile(new MemoryFile(descriptor), region.MemfdNumber!.Value, region.MemfdOffset);
    }

    // An agent that starts later finds the descriptors by their numbers: they must be the ones that came over the socket.
    private static void RequireNumbers(HandoffMessage message, Pidfd pidfd, IReadOnlyList<FileDescriptor> descriptors)
    {
        RequireSame(pidfd, message.Userfaultfd, descriptors[0], "userfaultfd");
        foreach (var region in message.Regions.Where(region => region.Memfd is not null))
        {
            RequireSame(pidfd, region.MemfdNumber!.Value, descriptors[1 + region.Memfd!.Value], "memfdNumber");
        }
    }

    private static void RequireSame(Pidfd pidfd, int number, FileDescriptor received, string field)
    {
        try
        {
            using var copy = pidfd.GetFd(number);
            if (copy.LinkTarget == received.LinkTarget && FileDescriptorInfo.Identity(copy) == FileDescriptorInfo.Identity(received))
            {
                return;
            }
        }
        catch (LinuxException exception) when (exception.Errno is Errno.EBADF or Errno.EINVAL)
        {
            // Answered below.
        }

        throw new HandoffRejectedException("wrong-descriptor", $"{field} {number} is not the descriptor that came with the message");
    }

    private static void RequireMapped(GuestLayout layout, int pid)
    {
        var maps = ProcessMaps.Read(pid).ToList();
        foreach (var region in layout.Regions)
        {
            var file = region.Backing.Identity;
            var at = region.HostVirtualAddress;
            var end = at + (ulong)region.Bytes;
            foreach (var map in maps.Where(map => map.Start <= at && at < map.End || (map.Start > at && map.Start < end)).OrderBy(map => map.Start))
            {
                var offset = region.Backing.Offset + (long)(at - region.HostVirtualAddress);
                if (map.Start > at || (file is null ? !IsAnonymous(map, region) : !map.IsShared || map.File != file || map.Offset + (long)(at - map.Start) != offset))
                {
                    break;
                }

                at = map.End;
            }

            if (at < end)
            {
                throw new HandoffRejectedException("not-mapped", $"the VMM has not mapped its memory at {HexAddress.Format(at)} as it says");
            }
        }
    }

    // Private memory of huge pages shows a file of the kernel's own.
    private static bool IsAnonymous(ProcessMap map, GuestRegion region) => !map.IsShared
        && (region.Backing.Kind == BackingKind.Hugetlb ? map.Path.StartsWith("/anon_hugepage", StringComparison.Ordinal) : map.Inode == 0);

    private static void RequireFeatures(UserfaultfdHandle userfaultfd, GuestLayout layout)
    {
        var needed = layout.Regions.Aggregate(UffdFeatures.None, (features, region) => features | region.Backing.Features);
        try
        {
            if (userfaultfd.HandshakeFeatures() is not { } features)
            {
                userfaultfd.Handshake(needed);
            }
            else if ((features & needed) != needed)
            {
                throw new HandoffRejectedException("userfaultfd-features", $"the userfaultfd lacks {needed & ~features}; leave the UFFDIO_API handshake to the agent, or ask for {needed}");
            }
        }
        catch (LinuxException exception)
        {
            throw new HandoffRejectedException("userfaultfd-features", $"{exception.Call}: {exception.Errno}; this kernel cannot do {needed}");
        }
    }

    // A userfaultfd acts on the process that made it. Registering a page at the VMM's address fails in any other process,
    // unless that one has mapped something there too; then verification by the VMM's own page tables says so.
    private static void RequireSameProcess(UserfaultfdHandle userfaultfd, GuestLayout layout)
    {
        var first = layout.Regions[0];
        try
        {
            userfaultfd.Register(first.HostVirtualAddress, (ulong)first.PageBytes, first.Backing.RegisterMode);
            userfaultfd.Unregister(first.HostVirtualAddress, (ulong)first.PageBytes);
        }
        catch (LinuxException exception)
        {
            throw exception.Errno == Errno.EBUSY
                ? new HandoffRejectedException("busy-userfaultfd", "another userfaultfd holds this memory")
                : new HandoffRejectedException("wrong-descriptor", $"the userfaultfd does not act on the VMM's memory ({exception.Call}: {exception.Errno})");
        }
    }
}
