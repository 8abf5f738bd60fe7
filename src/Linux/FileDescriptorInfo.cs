using System.Globalization;

namespace Fleet.Linux;

/// <summary>What /proc says of a descriptor of this process.</summary>
public static class FileDescriptorInfo
{
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

    public static bool IsMemfd(FileDescriptor fd) => fd.LinkTarget?.StartsWith("/memfd:", StringComparison.Ordinal) == true;

    /// <summary>Numbers of all descriptors that this process has open.</summary>
    public static int CountOpen() => Directory.EnumerateFileSystemEntries("/proc/self/fd").Count();
}
