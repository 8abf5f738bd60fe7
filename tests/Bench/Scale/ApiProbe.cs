using System.Globalization;
using System.Text.RegularExpressions;

namespace Fleet.Bench.Scale;

/// <summary>What the control plane's process tells of itself, and the kernel of it.</summary>
internal static partial class ApiProbe
{
    public const string Transactions = "fleet_writer_transaction_seconds_count";
    public const string Heartbeats = "fleet_heartbeats";

    /// <summary>Resident memory in KiB. The kernel's memory for its sockets is not in it.</summary>
    public static long ResidentKiB(int pid)
    {
        var line = File.ReadLines($"/proc/{pid}/status").First(line => line.StartsWith("VmRSS:", StringComparison.Ordinal));
        return long.Parse(Digits().Match(line).Value, CultureInfo.InvariantCulture);
    }

    /// <summary>The program's own metrics, by name and labels.</summary>
    public static async Task<IReadOnlyDictionary<string, double>> MetricsAsync(HttpClient admin, CancellationToken cancellationToken)
    {
        var text = await admin.GetStringAsync(new Uri("/metrics", UriKind.Relative), cancellationToken);
        return Sample().Matches(text).ToDictionary(match => match.Groups[1].Value, match => double.Parse(match.Groups[2].Value, CultureInfo.InvariantCulture));
    }

    public static string Opening(string kind) => $"fleet_push_openings{{kind=\"{kind}\"}}";

    [GeneratedRegex("[0-9]+")]
    private static partial Regex Digits();

    [GeneratedRegex("^(fleet_[^ ]+) ([0-9.e+-]+)$", RegexOptions.Multiline)]
    private static partial Regex Sample();
}
