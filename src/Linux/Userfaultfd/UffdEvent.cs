namespace Fleet.Linux.Userfaultfd;

public enum UffdEventKind
{
    PageFault,
    Remove,
    Unmap,

    /// <summary>mremap(2) moved the range away.</summary>
    Remap,
    Other,
}

/// <summary>One message read from a userfaultfd.</summary>
/// <param name="Address">Fault address, or start of the range that was removed, unmapped or moved away.</param>
/// <param name="End">End of that range; 0 for a page fault.</param>
/// <param name="Write">The access was a write.</param>
/// <param name="Minor">The page is in the page cache, only not mapped.</param>
/// <param name="ThreadId">Faulting thread where UFFD_FEATURE_THREAD_ID is on; under KVM's asynchronous faults a kernel worker, so never rely on it.</param>
public readonly record struct UffdEvent(UffdEventKind Kind, ulong Address, ulong End, bool Write, bool Minor, uint ThreadId)
{
    internal static UffdEvent From(in UffdMessage message) => message.Event switch
    {
        UffdConstants.UFFD_EVENT_PAGEFAULT => new(
            UffdEventKind.PageFault,
            message.Address,
            0,
            (message.Flags & UffdConstants.UFFD_PAGEFAULT_FLAG_WRITE) != 0,
            (message.Flags & UffdConstants.UFFD_PAGEFAULT_FLAG_MINOR) != 0,
            message.ThreadId),
        UffdConstants.UFFD_EVENT_REMOVE => new(UffdEventKind.Remove, message.RemoveStart, message.RemoveEnd, false, false, 0),
        UffdConstants.UFFD_EVENT_UNMAP => new(UffdEventKind.Unmap, message.RemoveStart, message.RemoveEnd, false, false, 0),
        UffdConstants.UFFD_EVENT_REMAP => new(UffdEventKind.Remap, message.RemoveStart, message.RemoveStart + message.RemapLength, false, false, 0),
        _ => new(UffdEventKind.Other, 0, 0, false, false, 0),
    };
}
