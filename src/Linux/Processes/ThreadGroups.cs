using System.Globalization;

namespace Fleet.Linux.Processes;

/// <summary>Which process a thread belongs to (proc_pid_status(5)).</summary>
public static class ThreadGroups
{
    /// <summary>Pid of the thread's process; null when the thread has ended.</summary>
    public static int? Of(int threadId)
    {
        try
        {
            foreach (var line in File.ReadLines(FormattableString.Invariant($"/proc/{threadId}/status")))
            {
                if (line.StartsWith("Tgid:", StringComparison.Ordinal))
                {
                    return int.Parse(line.AsSpan(5).Trim(), CultureInfo.InvariantCulture);
                }
            }
        }
        catch (IOException)
        {
            // Ended, perhaps over the very access.
        }

        return null;
    }

    /// <summary>The threads that a process has now; none when it has ended.</summary>
    public static IReadOnlyList<int> Threads(int pid)
    {
        try
        {
            return [.. Directory.EnumerateDirectories(FormattableString.Invariant($"/proc/{pid}/task"))
                .Select(path => int.Parse(Path.GetFileName(path.AsSpan()), CultureInfo.InvariantCulture))];
        }
        catch (IOException)
        {
            return [];
        }
    }
}
