using System.Globalization;
using System.Text.Json;

namespace Fleet.HostAgent.Check;

/// <summary>The verb <c>check</c>: says what this host can do, and changes nothing on it.</summary>
public static class CheckCommand
{
    /// <returns>The exit code.</returns>
    public static async Task<int> RunAsync(bool json, TextWriter output)
    {
        var report = CheckReport.Make();
        await output.WriteLineAsync(json ? JsonSerializer.Serialize(report, CheckJson.Default.CheckReport) : Text(report));
        return report.Ok ? 0 : ExitCodes.Unable;
    }

    public static string Text(CheckReport report)
    {
        List<string> lines =
        [
            $"fleet-agent {report.AgentVersion} on Linux {report.Kernel}, {(report.Privileged ? "as root" : "not as root")}",
            string.Empty,
            Row("memory", "zap", "policy", "zapped by", "can"),
            .. report.Cells.Select(cell => Row(cell.Memory, cell.Zap, cell.Policy, cell.By, cell.Able ? "yes" : $"no: {cell.Reason}")),
            string.Empty,
            .. report.Capabilities.Where(pair => !IsCell(report, pair.Key)).Select(pair => string.Create(CultureInfo.InvariantCulture, $"{pair.Key,-32} {pair.Value}")),
            string.Empty,
            report.Ok ? "Poisoned pages can be enforced on this host." : "Poisoned pages CANNOT be enforced on this host.",
            .. report.Advice,
        ];
        return string.Join('\n', lines);
    }

    private static bool IsCell(CheckReport report, string name) =>
        report.Cells.Any(cell => name == $"enforce.{cell.Memory}.{cell.Zap}.{cell.Policy}");

    private static string Row(string memory, string zap, string policy, string by, string can) =>
        string.Create(CultureInfo.InvariantCulture, $"{memory,-16} {zap,-11} {policy,-7} {by,-10} {can}");
}
