using System.Globalization;

namespace Fleet.Linux.Processes;

/// <summary>
/// A process that cannot be mistaken for another: a pid is reused, a pid with its start time and the host's boot id is not.
/// </summary>
/// <param name="StartTime">Field 22 of /proc/PID/stat: clock ticks after boot (proc_pid_stat(5)).</param>
public sealed record ProcessIdentity(string BootId, int Pid, long StartTime)
{
    /// <summary>The process that has this pid now; null when there is none.</summary>
    public static ProcessIdentity? Of(int pid) =>
        ReadStartTime(pid) is { } startTime ? new ProcessIdentity(KernelInfo.BootId, pid, startTime) : null;

    /// <summary>Whether the recorded process still runs (or is a zombie); false when the pid belongs to another one by now.</summary>
    public bool IsAlive() => BootId == KernelInfo.BootId && ReadStartTime(Pid) == StartTime;

    private static long? ReadStartTime(int pid)
    {
        try
        {
            var stat = File.ReadAllText(FormattableString.Invariant($"/proc/{pid}/stat"));
            // The second field, the program's name in parentheses, may itself hold blanks and parentheses.
            var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            return long.Parse(fields[22 - 3], CultureInfo.InvariantCulture);
        }
        catch (IOException)
        {
            // No such process, or it ended while its file was read (ESRCH).
            return null;
        }
    }
}
