using System.Diagnostics;
using Fleet.Tests.Shared;

namespace Fleet.OpenApi.Tests;

/// <summary>The committed document against redocly's rules, all of them errors: openapi/redocly.yaml.</summary>
public sealed class LintTests(ITestOutputHelper output)
{
    // The node that Playwright brings: pinned with it, and newer than Debian's, which redocly does not run on.
    private static readonly string Node = Path.Combine(AppContext.BaseDirectory, ".playwright/node/linux-x64/node");

    [Fact]
    public async Task Document_KeepsEveryRuleOfRedocly()
    {
        var folder = Path.Combine(Repository.Root, "openapi");
        var redocly = Path.Combine(folder, "node_modules/@redocly/cli/bin/cli.js");
        Requires.File(redocly, "run npm ci in the folder openapi, as .ci/run does");
        var (exitCode, report) = await RunAsync(folder, redocly, "lint");
        output.WriteLine(report);
        Assert.True(exitCode == 0, report);

        // Exit code 0 is also what a linter says that found no document.
        Assert.Contains("Your API description is valid", report, StringComparison.Ordinal);
    }

    private static async Task<(int ExitCode, string Report)> RunAsync(string folder, params string[] arguments)
    {
        var start = new ProcessStartInfo(Node, arguments) { WorkingDirectory = folder, RedirectStandardOutput = true, RedirectStandardError = true };

        // It would ask the registry for a newer one, and count its uses somewhere.
        start.Environment["REDOCLY_TELEMETRY"] = "off";
        start.Environment["REDOCLY_SUPPRESS_UPDATE_NOTICE"] = "true";
        start.Environment["NO_COLOR"] = "1";
        using var process = Process.Start(start)!;
        var texts = await Task.WhenAll(process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
        await process.WaitForExitAsync();
        return (process.ExitCode, string.Concat(texts));
    }
}
