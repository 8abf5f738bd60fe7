using System.Runtime.InteropServices;
using Fleet.Linux.Interop;
using Fleet.Linux.Memory;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;

namespace Fleet.Linux.Tests;

/// <summary>Sizes, offsets and numbers of the interop code against the C headers of this system.</summary>
public sealed class AbiTests
{
    private static readonly string[] Headers =
    [
        "linux/userfaultfd.h", "sys/ioctl.h", "sys/socket.h", "sys/mman.h", "sys/uio.h", "sys/syscall.h", "sys/eventfd.h",
        "linux/falloc.h", "sys/vfs.h", "sys/stat.h", "fcntl.h", "poll.h", "errno.h", "asm/socket.h",
        "linux/fs.h", "linux/kernel-page-flags.h", "linux/mount.h", "unistd.h",
    ];

    private static readonly Dictionary<string, ulong> Ours = new()
    {
        ["UFFD_API"] = UffdConstants.UFFD_API,
        ["UFFDIO_API"] = UffdConstants.UFFDIO_API,
        ["UFFDIO_REGISTER"] = UffdConstants.UFFDIO_REGISTER,
        ["UFFDIO_UNREGISTER"] = UffdConstants.UFFDIO_UNREGISTER,
        ["UFFDIO_WAKE"] = UffdConstants.UFFDIO_WAKE,
        ["UFFDIO_COPY"] = UffdConstants.UFFDIO_COPY,
        ["UFFDIO_ZEROPAGE"] = UffdConstants.UFFDIO_ZEROPAGE,
        ["UFFDIO_CONTINUE"] = UffdConstants.UFFDIO_CONTINUE,
        ["UFFDIO_POISON"] = UffdConstants.UFFDIO_POISON,
        ["UFFD_EVENT_PAGEFAULT"] = UffdConstants.UFFD_EVENT_PAGEFAULT,
        ["UFFD_EVENT_FORK"] = UffdConstants.UFFD_EVENT_FORK,
        ["UFFD_EVENT_REMAP"] = UffdConstants.UFFD_EVENT_REMAP,
        ["UFFD_EVENT_REMOVE"] = UffdConstants.UFFD_EVENT_REMOVE,
        ["UFFD_EVENT_UNMAP"] = UffdConstants.UFFD_EVENT_UNMAP,
        ["UFFD_PAGEFAULT_FLAG_WRITE"] = UffdConstants.UFFD_PAGEFAULT_FLAG_WRITE,
        ["UFFD_PAGEFAULT_FLAG_MINOR"] = UffdConstants.UFFD_PAGEFAULT_FLAG_MINOR,
        ["UFFD_USER_MODE_ONLY"] = UffdConstants.UFFD_USER_MODE_ONLY,
        ["UFFD_FEATURE_EVENT_REMOVE"] = (ulong)UffdFeatures.EventRemove,
        ["UFFD_FEATURE_MISSING_HUGETLBFS"] = (ulong)UffdFeatures.MissingHugetlbfs,
        ["UFFD_FEATURE_MISSING_SHMEM"] = (ulong)UffdFeatures.MissingShmem,
        ["UFFD_FEATURE_EVENT_UNMAP"] = (ulong)UffdFeatures.EventUnmap,
        ["UFFD_FEATURE_THREAD_ID"] = (ulong)UffdFeatures.ThreadId,
        ["UFFD_FEATURE_MINOR_HUGETLBFS"] = (ulong)UffdFeatures.MinorHugetlbfs,
        ["UFFD_FEATURE_MINOR_SHMEM"] = (ulong)UffdFeatures.MinorShmem,
        ["UFFD_FEATURE_EXACT_ADDRESS"] = (ulong)UffdFeatures.ExactAddress,
        ["UFFD_FEATURE_POISON"] = (ulong)UffdFeatures.Poison,
        ["UFFD_FEATURE_MOVE"] = (ulong)UffdFeatures.Move,
        ["UFFDIO_REGISTER_MODE_MISSING"] = (ulong)UffdRegisterMode.Missing,
        ["UFFDIO_REGISTER_MODE_WP"] = (ulong)UffdRegisterMode.WriteProtect,
        ["UFFDIO_REGISTER_MODE_MINOR"] = (ulong)UffdRegisterMode.Minor,
        ["sizeof(struct uffdio_api)"] = Size<UffdioApi>(),
        ["sizeof(struct uffdio_range)"] = Size<UffdioRange>(),
        ["sizeof(struct uffdio_register)"] = Size<UffdioRegister>(),
        ["offsetof(struct uffdio_register, mode)"] = Offset<UffdioRegister>(nameof(UffdioRegister.Mode)),
        ["sizeof(struct uffdio_copy)"] = Size<UffdioCopy>(),
        ["offsetof(struct uffdio_copy, src)"] = Offset<UffdioCopy>(nameof(UffdioCopy.Source)),
        ["offsetof(struct uffdio_copy, len)"] = Offset<UffdioCopy>(nameof(UffdioCopy.Length)),
        ["offsetof(struct uffdio_copy, copy)"] = Offset<UffdioCopy>(nameof(UffdioCopy.Copied)),
        ["sizeof(struct uffdio_zeropage)"] = Size<UffdioRangeResult>(),
        ["offsetof(struct uffdio_zeropage, zeropage)"] = Offset<UffdioRangeResult>(nameof(UffdioRangeResult.Done)),
        ["sizeof(struct uffdio_continue)"] = Size<UffdioRangeResult>(),
        ["offsetof(struct uffdio_continue, mapped)"] = Offset<UffdioRangeResult>(nameof(UffdioRangeResult.Done)),
        ["sizeof(struct uffd_msg)"] = Size<UffdMessage>(),
        ["offsetof(struct uffd_msg, arg.pagefault.flags)"] = Offset<UffdMessage>(nameof(UffdMessage.Flags)),
        ["offsetof(struct uffd_msg, arg.pagefault.address)"] = Offset<UffdMessage>(nameof(UffdMessage.Address)),
        ["offsetof(struct uffd_msg, arg.pagefault.feat.ptid)"] = Offset<UffdMessage>(nameof(UffdMessage.ThreadId)),
        ["offsetof(struct uffd_msg, arg.remove.start)"] = Offset<UffdMessage>(nameof(UffdMessage.RemoveStart)),
        ["offsetof(struct uffd_msg, arg.remove.end)"] = Offset<UffdMessage>(nameof(UffdMessage.RemoveEnd)),
        ["offsetof(struct uffd_msg, arg.remap.from)"] = Offset<UffdMessage>(nameof(UffdMessage.RemoveStart)),
        ["offsetof(struct uffd_msg, arg.remap.len)"] = Offset<UffdMessage>(nameof(UffdMessage.RemapLength)),
        ["sizeof(struct statfs)"] = Size<Statfs>(),
        ["offsetof(struct statfs, f_type)"] = Offset<Statfs>(nameof(Statfs.Type)),
        ["offsetof(struct statfs, f_bsize)"] = Offset<Statfs>(nameof(Statfs.BlockBytes)),
        ["sizeof(struct statx)"] = Size<Statx>(),
        ["offsetof(struct statx, stx_ino)"] = Offset<Statx>(nameof(Statx.Inode)),
        ["offsetof(struct statx, stx_dev_major)"] = Offset<Statx>(nameof(Statx.DeviceMajor)),
        ["offsetof(struct statx, stx_dev_minor)"] = Offset<Statx>(nameof(Statx.DeviceMinor)),
        ["AT_EMPTY_PATH"] = Constants.AT_EMPTY_PATH,
        ["STATX_INO"] = Constants.STATX_INO,
        ["O_CLOEXEC"] = Constants.O_CLOEXEC,
        ["O_NONBLOCK"] = Constants.O_NONBLOCK,
        ["(int)FSCONFIG_CMD_CREATE"] = Constants.FSCONFIG_CMD_CREATE,
        ["O_WRONLY"] = Constants.O_WRONLY,
        ["SEEK_DATA"] = Constants.SEEK_DATA,
        ["SEEK_HOLE"] = Constants.SEEK_HOLE,
        ["FSOPEN_CLOEXEC"] = Constants.FSOPEN_CLOEXEC,
        ["FSMOUNT_CLOEXEC"] = Constants.FSMOUNT_CLOEXEC,
        ["SYS_fsopen"] = (ulong)SyscallNumbers.fsopen,
        ["SYS_fsconfig"] = (ulong)SyscallNumbers.fsconfig,
        ["SYS_fsmount"] = (ulong)SyscallNumbers.fsmount,
        ["PROT_READ"] = Constants.PROT_READ,
        ["PROT_WRITE"] = Constants.PROT_WRITE,
        ["MAP_SHARED"] = Constants.MAP_SHARED,
        ["MAP_PRIVATE"] = Constants.MAP_PRIVATE,
        ["MAP_ANONYMOUS"] = Constants.MAP_ANONYMOUS,
        ["MAP_NORESERVE"] = Constants.MAP_NORESERVE,
        ["MAP_HUGETLB"] = Constants.MAP_HUGETLB,
        ["MREMAP_MAYMOVE"] = Constants.MREMAP_MAYMOVE,
        ["MREMAP_FIXED"] = Constants.MREMAP_FIXED,
        ["MFD_CLOEXEC"] = Constants.MFD_CLOEXEC,
        ["MFD_HUGETLB"] = Constants.MFD_HUGETLB,
        ["FALLOC_FL_KEEP_SIZE"] = Constants.FALLOC_FL_KEEP_SIZE,
        ["FALLOC_FL_PUNCH_HOLE"] = Constants.FALLOC_FL_PUNCH_HOLE,
        ["EFD_CLOEXEC"] = Constants.EFD_CLOEXEC,
        ["SOL_SOCKET"] = Constants.SOL_SOCKET,
        ["SCM_RIGHTS"] = Constants.SCM_RIGHTS,
        ["SO_PEERCRED"] = Constants.SO_PEERCRED,
        ["SO_PEERPIDFD"] = Constants.SO_PEERPIDFD,
        ["MSG_CTRUNC"] = Constants.MSG_CTRUNC,
        ["MSG_DONTWAIT"] = Constants.MSG_DONTWAIT,
        ["MSG_NOSIGNAL"] = Constants.MSG_NOSIGNAL,
        ["MSG_CMSG_CLOEXEC"] = Constants.MSG_CMSG_CLOEXEC,
        ["MADV_DONTNEED"] = (ulong)MemoryAdvice.DontNeed,
        ["MADV_REMOVE"] = (ulong)MemoryAdvice.Remove,
        ["MADV_DONTFORK"] = (ulong)MemoryAdvice.DontFork,
        ["MADV_HUGEPAGE"] = (ulong)MemoryAdvice.HugePage,
        ["MADV_NOHUGEPAGE"] = (ulong)MemoryAdvice.NoHugePage,
        ["MADV_COLLAPSE"] = (ulong)MemoryAdvice.Collapse,
        ["sizeof(struct pollfd)"] = Size<PollFd>(),
        ["sizeof(struct iovec)"] = Size<IoVector>(),
        ["sizeof(struct ucred)"] = Size<UserCredentials>(),
        ["sizeof(struct cmsghdr)"] = Size<ControlHeader>(),
        ["offsetof(struct cmsghdr, cmsg_level)"] = Offset<ControlHeader>(nameof(ControlHeader.Level)),
        ["offsetof(struct cmsghdr, cmsg_type)"] = Offset<ControlHeader>(nameof(ControlHeader.Type)),
        ["sizeof(struct msghdr)"] = Size<MessageHeader>(),
        ["offsetof(struct msghdr, msg_iov)"] = Offset<MessageHeader>(nameof(MessageHeader.Vectors)),
        ["offsetof(struct msghdr, msg_iovlen)"] = Offset<MessageHeader>(nameof(MessageHeader.VectorCount)),
        ["offsetof(struct msghdr, msg_control)"] = Offset<MessageHeader>(nameof(MessageHeader.Control)),
        ["offsetof(struct msghdr, msg_controllen)"] = Offset<MessageHeader>(nameof(MessageHeader.ControlLength)),
        ["offsetof(struct msghdr, msg_flags)"] = Offset<MessageHeader>(nameof(MessageHeader.Flags)),
        ["POLLIN"] = (ulong)PollFd.POLLIN,
        ["POLLERR"] = (ulong)PollFd.POLLERR,
        ["POLLHUP"] = (ulong)PollFd.POLLHUP,
        ["KPF_HUGE"] = KernelPageFlags.KPF_HUGE,
        ["KPF_HWPOISON"] = KernelPageFlags.KPF_HWPOISON,
        ["PAGEMAP_SCAN"] = PageMapScan.PAGEMAP_SCAN,
        ["PAGE_IS_SWAPPED"] = PageMapScan.PAGE_IS_SWAPPED,
        ["PAGE_IS_HUGE"] = PageMapScan.PAGE_IS_HUGE,
        ["SYS_userfaultfd"] = (ulong)SyscallNumbers.userfaultfd,
        ["SYS_kcmp"] = (ulong)SyscallNumbers.kcmp,
        ["SYS_pidfd_send_signal"] = (ulong)SyscallNumbers.pidfd_send_signal,
        ["SYS_pidfd_open"] = (ulong)SyscallNumbers.pidfd_open,
        ["SYS_pidfd_getfd"] = (ulong)SyscallNumbers.pidfd_getfd,
    };

    [Fact]
    public async Task Interop_AgainstCHeaders_IsTheSame()
    {
        Requires.Gcc();
        var errnos = Enum.GetValues<Errno>().Where(errno => errno != Errno.None).ToDictionary(errno => errno.ToString(), errno => (ulong)errno);
        var ours = Ours.Concat(errnos).ToDictionary();
        var theirs = await CProgram.EvaluateAsync(Headers, [.. ours.Keys]);

        var different = theirs.Where(pair => ours[pair.Key] != pair.Value)
            .Select(pair => $"{pair.Key}: C {pair.Value}, ours {ours[pair.Key]}");
        Assert.Empty(different);

        // Headers older than a feature lack its macro; everything that is a size, an offset or a system call must be compared.
        var missing = ours.Keys.Except(theirs.Keys).ToHashSet();
        Assert.Subset(
            new HashSet<string> { "UFFDIO_POISON", "UFFD_FEATURE_POISON", "UFFD_FEATURE_MOVE", "SO_PEERPIDFD", "MADV_COLLAPSE", "UFFD_USER_MODE_ONLY", "PAGEMAP_SCAN", "PAGE_IS_SWAPPED", "PAGE_IS_HUGE" },
            missing);
    }

    private static ulong Size<T>() => (ulong)Marshal.SizeOf<T>();

    private static ulong Offset<T>(string field) => (ulong)Marshal.OffsetOf<T>(field);
}
