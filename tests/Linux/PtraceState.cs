using System.Diagnostics;

namespace Fleet.Linux.Tests;

/// <summary>What /proc says of a process that is traced, or may be.</summary>
internal static class PtraceState
{
    /// <summary>One after the other: each keeps both processors busy.</summary>
    public const string Collection = "ptrace";

    public const long SYS_getpid = 39;

    public static char StateOf(int pid)
    {
        var stat = File.ReadAllText($"/proc/{pid}/stat");
        return stat[stat.LastIndexOf(')') + 2];
    }

    public static int TracerOf(int pid) =>
        int.Parse(File.ReadLines($"/proc/{pid}/status").Single(line => line.StartsWith("TracerPid:", StringComparison.Ordinal)).AsSpan(10).Trim(), System.Globalization.CultureInfo.InvariantCulture);

    public static async Task UntilAsync(Func<bool> condition)
    {
        var started = Stopwatch.GetTimestamp();
        while (!condition())
        {
            Assert.True(Stopwatch.GetElapsedTime(started) < TimeSpan.FromSeconds(60), "the condition did not come about in 60 s");
            await Task.Delay(5, TestContext.Current.CancellationToken); // allowed: polling with a deadline
        }
    }
}
