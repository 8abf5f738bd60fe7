using System.Runtime.InteropServices;

namespace Fleet.Linux.Interop;

/// <summary>Constants of the generic Linux ABI, by their native names; compared with the C headers in a test.</summary>
internal static class Constants
{
    internal const int O_RDONLY = 0;
    internal const int O_WRONLY = 1;
    internal const int O_NONBLOCK = 0x800;
    internal const int O_PATH = 0x200000;
    internal const int F_GETFL = 3;
    internal const int F_SETFL = 4;
    internal const int RWF_NOWAIT = 8;

    /// <summary>Differs between x86-64 and arm64.</summary>
    internal static readonly int O_DIRECTORY = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 0x10000 : 0x4000;

    internal const int AT_SYMLINK_NOFOLLOW = 0x100;
    internal const int AT_EMPTY_PATH = 0x1000;
    internal const uint STATX_TYPE = 1;

    internal const ulong RESOLVE_NO_MAGICLINKS = 2;
    internal const ulong RESOLVE_NO_SYMLINKS = 4;
    internal const ulong RESOLVE_BENEATH = 8;

    internal const int S_IFMT = 0xF000;
    internal const int O_CLOEXEC = 0x80000;

    internal const uint STATX_INO = 0x100;

    internal const int PROT_READ = 1;
    internal const int PROT_WRITE = 2;
    internal const int MAP_SHARED = 1;
    internal const int MAP_PRIVATE = 2;
    internal const int MAP_FIXED = 0x10;
    internal const int MAP_ANONYMOUS = 0x20;
    internal const int MAP_NORESERVE = 0x4000;
    internal const int MAP_HUGETLB = 0x40000;
    internal const int MAP_HUGE_2MB = 21 << 26;
    internal const int MREMAP_MAYMOVE = 1;
    internal const int MREMAP_FIXED = 2;

    internal const uint MFD_CLOEXEC = 1;
    internal const uint MFD_ALLOW_SEALING = 2;
    internal const uint MFD_HUGETLB = 4;
    internal const uint MFD_HUGE_2MB = 21u << 26;

    internal const int FALLOC_FL_KEEP_SIZE = 1;
    internal const int FALLOC_FL_PUNCH_HOLE = 2;

    internal const int SEEK_DATA = 3;
    internal const int SEEK_HOLE = 4;

    internal const int FSOPEN_CLOEXEC = 1;
    internal const int FSCONFIG_CMD_CREATE = 6;
    internal const int FSMOUNT_CLOEXEC = 1;

    internal const int EFD_CLOEXEC = 0x80000;

    internal const int SOL_SOCKET = 1;
    internal const int SCM_RIGHTS = 1;
    internal const int SO_PEERCRED = 17;
    internal const int SO_PEERPIDFD = 77;
    internal const int MSG_CTRUNC = 0x8;
    internal const int MSG_DONTWAIT = 0x40;
    internal const int MSG_NOSIGNAL = 0x4000;
    internal const int MSG_CMSG_CLOEXEC = 0x40000000;

    internal const int SCM_MAX_FD = 253;

    internal const int WNOHANG = 1;
    internal const int __WALL = 0x40000000;
    internal const int SIGTRAP = 5;
    internal const int SIGSTOP = 19;
}

/// <summary>System call numbers of calls that the C library does not wrap everywhere.</summary>
internal static class SyscallNumbers
{
    // These three differ between x86-64 and the generic table of arm64.
    internal static readonly nint userfaultfd = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 323 : 282;
    internal static readonly nint kcmp = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 312 : 272;
    internal static readonly nint ptrace = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 101 : 117;
    internal const nint pidfd_send_signal = 424;
    internal const nint fsopen = 430;
    internal const nint fsconfig = 431;
    internal const nint fsmount = 432;
    internal const nint pidfd_open = 434;
    internal const nint openat2 = 437;
    internal const nint pidfd_getfd = 438;
}
