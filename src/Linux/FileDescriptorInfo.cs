using System.Globalization;
using Fleet.Linux.Interop;

namespace Fleet.Linux;

/// <summary>What the kernel says of a descriptor of this process.</summary>
public static class FileDescriptorInfo
{
    private const long TMPFS_MAGIC = 0x01021994;
    private const long HUGETLBFS_MAGIC = 0x958458f6;

    /// <summary>
    /// The inode number (the <c>ino:</c> line of fdinfo, Linux 5.14). All memfds live on one internal shmem mount, or one
    /// hugetlbfs mount for each page size, so that inode and link target together name one of them.
    /// </summary>
    public static ulong Inode(FileDescriptor fd)
    {
        foreach (var line in File.ReadLines(FormattableString.Invariant($"/proc/self/fdinfo/{fd.Number}")))
        {
            if (line.StartsWith("ino:", StringComparison.Ordinal))
            {
                return ulong.Parse(line.AsSpan(4).Trim(), CultureInfo.InvariantCulture);
            }
        }

        throw new NotSupportedException("this kernel's fdinfo has no inode number; Linux 5.14 or newer is needed");
    }

    /// <summary>The file that it stands for (statx(2)).</summary>
    /// <exception cref="LinuxException">statx failed.</exception>
    public static unsafe FileIdentity Identity(FileDescriptor fd)
    {
        Statx status = default;
        LinuxException.Check(Libc.statx(fd.Number, string.Empty, Constants.AT_EMPTY_PATH, Constants.STATX_INO, &status), "statx");
        return new FileIdentity(FormattableString.Invariant($"{status.DeviceMajor:x2}:{status.DeviceMinor:x2}"), status.Inode);
    }

    /// <summary>What kind of memory a file is (fstatfs(2)).</summary>
    /// <returns>The kind, and the size of its pages in bytes: of hugetlbfs the mount's, else 4096.</returns>
    /// <exception cref="LinuxException">fstatfs failed.</exception>
    public static unsafe (MemoryFileKind Kind, long PageBytes) MemoryKind(FileDescriptor fd)
    {
        Statfs status = default;
        LinuxException.Check(Libc.fstatfs(fd.Number, &status), "fstatfs");
        return status.Type switch
        {
            TMPFS_MAGIC => (MemoryFileKind.Shmem, 4096),
            HUGETLBFS_MAGIC => (MemoryFileKind.Hugetlbfs, status.BlockBytes),
            _ => (MemoryFileKind.Other, 0),
        };
    }

    public static bool IsMemfd(FileDescriptor fd) => fd.LinkTarget?.StartsWith("/memfd:", StringComparison.Ordinal) == true;

    /// <summary>Numbers of all descriptors that this process has open.</summary>
    public static int CountOpen() => Directory.EnumerateFileSystemEntries("/proc/self/fd").Count();
}

public enum MemoryFileKind
{
    /// <summary>No file in memory.</summary>
    Other,

    /// <summary>A memfd, or a file on tmpfs.</summary>
    Shmem,

    /// <summary>A memfd of huge pages, or a file on hugetlbfs.</summary>
    Hugetlbfs,
}

/// <summary>Names one file of the host while it exists.</summary>
/// <param name="Device">Major and minor as /proc/PID/maps shows them, such as <c>00:01</c>.</param>
public readonly record struct FileIdentity(string Device, ulong Inode);
