using System.Globalization;

namespace Fleet.Linux.Processes;

/// <summary>What a process lets devices do with its memory (proc_pid_status(5), proc_pid_fd(5)).</summary>
public static class ProcessPins
{
    /// <summary>
    /// Bytes that the kernel holds in place for a device or a driver (field VmPin, mm's <c>pinned_vm</c>): iommufd, vhost-vdpa, RDMA and
    /// io_uring's registered buffers count there. The vfio type 1 driver does not; see <see cref="DeviceOf"/>. 0 for a zombie.
    /// </summary>
    /// <exception cref="IOException">The process has ended.</exception>
    public static long PinnedBytes(int pid)
    {
        foreach (var line in File.ReadLines(FormattableString.Invariant($"/proc/{pid}/status")))
        {
            if (line.StartsWith("VmPin:", StringComparison.Ordinal))
            {
                return long.Parse(line.AsSpan(6).TrimEnd("kB").Trim(), CultureInfo.InvariantCulture) << 10;
            }
        }

        return 0;
    }

    /// <summary>The first of its open descriptors that is a device with memory access of its own, as /proc shows it; null when there is none.</summary>
    /// <exception cref="IOException">The process has ended.</exception>
    /// <exception cref="UnauthorizedAccessException">No right to look.</exception>
    public static string? OpenDevice(int pid) =>
        Directory.EnumerateFileSystemEntries(FormattableString.Invariant($"/proc/{pid}/fd"))
            .Select(path => DeviceOf(LinkOf(path)))
            .FirstOrDefault(device => device is not null);

    /// <summary>
    /// A VFIO group or device, or a vDPA device: they reach memory through an IOMMU, past the process's page tables. The VFIO
    /// container alone has no device, and vhost-net and vhost-vsock go through the page tables.
    /// </summary>
    /// <param name="link">What a link in /proc/PID/fd says.</param>
    public static string? DeviceOf(string? link) =>
        link is not null
        && ((link.StartsWith("/dev/vfio/", StringComparison.Ordinal) && link != "/dev/vfio/vfio")
            || link.StartsWith("/dev/vhost-vdpa-", StringComparison.Ordinal)
            || link == "anon_inode:[vfio-device]")
            ? link
            : null;

    private static string? LinkOf(string path)
    {
        try
        {
            return new FileInfo(path).LinkTarget;
        }
        catch (IOException)
        {
            // Closed since the folder was read.
            return null;
        }
    }
}
