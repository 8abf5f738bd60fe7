using System.Globalization;
using Fleet.Linux.Interop;

namespace Fleet.Linux.Processes;

/// <summary>Which processes have mapped a file in memory: markers and userfaultfds act on one process's page tables only.</summary>
public static class MemoryFileUsers
{
    private const int KCMP_VM = 1;

    /// <summary>
    /// What every process maps of files in memory, for several questions at one time. It reads /proc/PID/maps of every process: milliseconds on a
    /// small host, and more with many processes.
    /// </summary>
    /// <returns>The files by process; processes without any are left out.</returns>
    /// <remarks>A process that may not be looked at (<see cref="CountHidden"/>) is passed over.</remarks>
    public static IReadOnlyDictionary<int, IReadOnlySet<FileIdentity>> Scan() => Pids()
        .Select(pid => KeyValuePair.Create(pid, (IReadOnlySet<FileIdentity>)MappedBy(pid).ToHashSet()))
        .Where(process => process.Value.Count > 0)
        .ToDictionary();

    /// <summary>
    /// The first process of a scan, other than those excepted, with a mapping of one of the files; null when there is none. It is looked at again,
    /// so that one that ended since is none.
    /// </summary>
    /// <param name="files">As <see cref="FileDescriptorInfo.Identity"/> tells them.</param>
    /// <param name="owner">The process whose memory it is; one that shares its page tables (a vfork child) is no other.</param>
    public static (int Pid, string Name)? FindOther(IReadOnlyDictionary<int, IReadOnlySet<FileIdentity>> scan, IReadOnlySet<FileIdentity> files, int owner, int self)
    {
        foreach (var (pid, mapped) in scan)
        {
            if (pid != owner && pid != self && mapped.Overlaps(files) && MappedBy(pid).Any(files.Contains) && !SharesMemory(pid, owner))
            {
                return (pid, NameOf(pid));
            }
        }

        return null;
    }

    /// <summary>Processes whose mappings this one may not see: none for root on the host itself, some where a sandbox stands around it.</summary>
    public static int CountHidden() => Pids().Count(IsHidden);

    private static IEnumerable<int> Pids() => Directory.EnumerateDirectories("/proc")
        .Select(folder => int.TryParse(Path.GetFileName(folder.AsSpan()), NumberStyles.None, CultureInfo.InvariantCulture, out var pid) ? pid : 0)
        .Where(pid => pid > 0);

    private static bool IsHidden(int pid)
    {
        try
        {
            _ = File.ReadLines(FormattableString.Invariant($"/proc/{pid}/maps")).Any();
            return false;
        }
        catch (IOException)
        {
            return false;
        }
        catch (UnauthorizedAccessException)
        {
            return true;
        }
    }

    private static List<FileIdentity> MappedBy(int pid)
    {
        try
        {
            // File systems in memory have no block device: their major number is 0. Most other lines are some library's or anonymous memory, and are
            // not taken apart.
            return [.. File.ReadLines(FormattableString.Invariant($"/proc/{pid}/maps"))
                .Where(line => line.Contains(" 00:", StringComparison.Ordinal) && !line.Contains(" 00:00 0", StringComparison.Ordinal))
                .Select(line => ProcessMaps.Parse(line).File)];
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // It ended meanwhile, or is hidden.
            return [];
        }
    }

    // kcmp(2) answers 0 for the same address space. Where the kernel lacks it (CONFIG_KCMP) every process is another.
    private static bool SharesMemory(int pid, int owner) => Libc.syscall(SyscallNumbers.kcmp, pid, owner, KCMP_VM, 0) == 0;

    private static string NameOf(int pid)
    {
        try
        {
            var name = File.ReadAllText(FormattableString.Invariant($"/proc/{pid}/comm")).TrimEnd('\n');
            return string.Concat(name.Select(c => char.IsControl(c) ? '?' : c));
        }
        catch (IOException)
        {
            return "ended";
        }
    }
}
