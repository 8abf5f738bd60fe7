using System.Globalization;
using Fleet.Linux.Interop;

namespace Fleet.Linux.Processes;

/// <summary>Which processes have mapped a memfd: markers and userfaultfds act on one process's page tables only.</summary>
public static class MemoryFileUsers
{
    private const string Memfd = "/memfd:";
    private const int KCMP_VM = 1;

    /// <summary>
    /// The first process, other than those excepted, with a mapping of one of the files; null when there is none. It reads
    /// /proc/PID/maps of every process: milliseconds on a small host, and more with many processes.
    /// </summary>
    /// <param name="inodes">As <see cref="FileDescriptorInfo.Inode"/> tells them.</param>
    /// <param name="owner">The process whose memory it is; one that shares its page tables (a vfork child) is no other.</param>
    /// <remarks>A process that may not be looked at (<see cref="CountHidden"/>) is passed over.</remarks>
    public static (int Pid, string Name)? FindOther(IReadOnlySet<ulong> inodes, int owner, int self)
    {
        foreach (var pid in Pids())
        {
            if (pid != owner && pid != self && HasMapped(pid, inodes) && !SharesMemory(pid, owner))
            {
                return (pid, NameOf(pid));
            }
        }

        return null;
    }

    /// <summary>What every process maps, for several questions at one time; <see cref="FindOther(IReadOnlyDictionary{int, IReadOnlySet{ulong}}, IReadOnlySet{ulong}, int, int)"/> asks it.</summary>
    /// <returns>The inodes of memfds by process; processes without any are left out.</returns>
    public static IReadOnlyDictionary<int, IReadOnlySet<ulong>> Scan() => Pids()
        .Select(pid => KeyValuePair.Create(pid, (IReadOnlySet<ulong>)MappedBy(pid).ToHashSet()))
        .Where(process => process.Value.Count > 0)
        .ToDictionary();

    /// <summary>As the other, of a scan made before; a process that is found is looked at again, so that one that ended since is none.</summary>
    public static (int Pid, string Name)? FindOther(IReadOnlyDictionary<int, IReadOnlySet<ulong>> scan, IReadOnlySet<ulong> inodes, int owner, int self)
    {
        foreach (var (pid, mapped) in scan)
        {
            if (pid != owner && pid != self && mapped.Overlaps(inodes) && HasMapped(pid, inodes) && !SharesMemory(pid, owner))
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

    private static bool HasMapped(int pid, IReadOnlySet<ulong> inodes) => MappedBy(pid).Any(inodes.Contains);

    private static List<ulong> MappedBy(int pid)
    {
        try
        {
            // Nearly every line of the host is some library's: those are not taken apart.
            return [.. File.ReadLines(FormattableString.Invariant($"/proc/{pid}/maps"))
                .Where(line => line.Contains(Memfd, StringComparison.Ordinal)).Select(line => ProcessMaps.Parse(line).Inode)];
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
