using System.Globalization;
using Fleet.Demo.Running;

namespace Fleet.EndToEnd.Tests;

/// <summary>What a process holds, by /proc: for finding what it never lets go of.</summary>
internal static class ProcessResources
{
    /// <summary>Open descriptors by what they are, but for the programs that its runtime loads when it first needs them.</summary>
    public static IReadOnlyDictionary<string, int> Descriptors(int pid) => Targets(pid)
        .Where(target => !target.EndsWith(".dll", StringComparison.Ordinal) && !target.EndsWith(".pdb", StringComparison.Ordinal))
        .CountBy(target => target.Split(":[")[0]).ToDictionary();

    /// <summary>What there is more of than before; empty when nothing is.</summary>
    public static string Grown(IReadOnlyDictionary<string, int> before, IReadOnlyDictionary<string, int> now) => string.Join(
        ", ", now.Where(kind => kind.Value > before.GetValueOrDefault(kind.Key)).Select(kind => $"{kind.Key}: {before.GetValueOrDefault(kind.Key)} -> {kind.Value}"));

    /// <summary>Descriptors borrowed from VMMs, by kind.</summary>
    public static string Borrowed(int pid)
    {
        var targets = Targets(pid);
        return string.Create(
            CultureInfo.InvariantCulture,
            $"{targets.Count(target => target == "anon_inode:[userfaultfd]")} userfaultfds, {targets.Count(target => target.StartsWith("/memfd:", StringComparison.Ordinal) && !target.Contains("doublemapper", StringComparison.Ordinal))} memfds, {targets.Count(target => target == "anon_inode:[pidfd]")} pidfds");
    }

    /// <summary>While a VMM hands over again the agent has both sets for a moment; one that it kept would stay.</summary>
    public static Task BorrowsAsync(ChildProcess agent, string expected, CancellationToken cancellationToken) => LocalFleet.UntilAsync(
        () => Task.FromResult(Borrowed(agent.Pid) == expected), $"the agent to hold {expected}", agent, cancellationToken);

    public static int Threads(int pid) => Directory.GetDirectories(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/task")).Length;

    private static List<string> Targets(int pid) =>
        [.. Directory.GetFileSystemEntries(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/fd")).Select(Target)];

    private static string Target(string path)
    {
        try
        {
            return new FileInfo(path).LinkTarget ?? string.Empty;
        }
        catch (IOException)
        {
            return string.Empty;
        }
    }
}
