using System.Globalization;
using Fleet.Linux.Interop;

namespace Fleet.Linux.Processes;

/// <summary>Which processes have mapped a file in memory: markers and userfaultfds act on one process's page tables only.</summary>
public static class MemoryFileUsers
{
    private const int KCMP_VM = 1;

    /// <summary>
    /// The first process, other than those excepted, with a mapping of one of the files; null when there is none. It reads
    /// /proc/PID/maps of every process: milliseconds on a small host, and more with many processes.
    /// </summary>
    /// <param name="files">As <see cref="FileDescriptorInfo.Identity"/> tells them.</param>
    /// <param name="owner">The process whose memory it is; one that shares its page tables (a vfork child) is no other.</param>
    /// <remarks>A process that may not be looked at (<see cref="CountHidden"/>) is passed over.</remarks>
    public static (int Pid, string Name)? FindOther(IReadOnlyCollection<FileIdentity> files, int owner, int self)
    {
        // Nearly every line of the host is some library's: those are not taken apart.
        var wanted = files.Select(file => FormattableString.Invariant($" {file.Device} {file.Inode} ")).Distinct().ToList();
        foreach (var pid in Pids())
        {
            if (pid != owner && pid != self && HasMapped(pid, wanted) && !SharesMemory(pid, owner))
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

    private static bool HasMapped(int pid, List<string> wanted)
    {
        try
        {
            return File.ReadLines(FormattableString.Invariant($"/proc/{pid}/maps"))
                .Any(line => wanted.Exists(file => line.Contains(file, StringComparison.Ordinal)));
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // It ended meanwhile, or is hidden.
            return false;
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
