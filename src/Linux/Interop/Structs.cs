using System.Runtime.InteropServices;

namespace Fleet.Linux.Interop;

/// <summary>struct pollfd, &lt;poll.h&gt;.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct PollFd
{
    internal int Fd;
    internal short Events;
    internal short Revents;

    internal const short POLLIN = 0x1;
    internal const short POLLERR = 0x8;
    internal const short POLLHUP = 0x10;
}

/// <summary>struct iovec, &lt;sys/uio.h&gt;.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct IoVector
{
    internal nint Base;
    internal nuint Length;
}

/// <summary>struct msghdr, &lt;sys/socket.h&gt; (64-bit).</summary>
[StructLayout(LayoutKind.Explicit, Size = 56)]
internal struct MessageHeader
{
    [FieldOffset(0)] internal nint Name;
    [FieldOffset(8)] internal uint NameLength;
    [FieldOffset(16)] internal nint Vectors;
    [FieldOffset(24)] internal nuint VectorCount;
    [FieldOffset(32)] internal nint Control;
    [FieldOffset(40)] internal nuint ControlLength;
    [FieldOffset(48)] internal int Flags;
}

/// <summary>struct cmsghdr, &lt;sys/socket.h&gt; (64-bit); data follows at once, aligned to 8.</summary>
[StructLayout(LayoutKind.Explicit, Size = 16)]
internal struct ControlHeader
{
    [FieldOffset(0)] internal nuint Length;
    [FieldOffset(8)] internal int Level;
    [FieldOffset(12)] internal int Type;
}

/// <summary>struct open_how, &lt;linux/openat2.h&gt;.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct OpenHow
{
    internal ulong Flags;
    internal ulong Mode;
    internal ulong Resolve;
}

/// <summary>struct ucred, &lt;sys/socket.h&gt;.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct UserCredentials
{
    internal int Pid;
    internal uint Uid;
    internal uint Gid;
}

/// <summary>struct statfs, &lt;sys/vfs.h&gt; (64-bit); the members that are read.</summary>
[StructLayout(LayoutKind.Explicit, Size = 120)]
internal struct Statfs
{
    [FieldOffset(0)] internal long Type;
    [FieldOffset(8)] internal long BlockBytes;
}

/// <summary>struct statx, &lt;sys/stat.h&gt;; the members that are read.</summary>
[StructLayout(LayoutKind.Explicit, Size = 256)]
internal struct Statx
{
    [FieldOffset(28)] internal ushort Mode;
    [FieldOffset(32)] internal ulong Inode;
    [FieldOffset(136)] internal uint DeviceMajor;
    [FieldOffset(140)] internal uint DeviceMinor;
}
