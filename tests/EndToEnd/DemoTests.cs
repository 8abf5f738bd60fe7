using System.Diagnostics;
using Fleet.Tests.Shared;

namespace Fleet.EndToEnd.Tests;

public sealed class DemoTests
{
    [Fact]
    public async Task Demo_WholeStory_EveryAssertionHoldsAndTheExitCodeSaysSo()
    {
        Requires.Kvm();
        var demo = typeof(Demo.Running.Programs).Assembly.Location;
        using var process = Process.Start(new ProcessStartInfo("dotnet", [demo]) { RedirectStandardOutput = true })!;
        var output = await process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);

        Assert.True(process.ExitCode == 0, output);
        Assert.Contains("15 of 15 assertions held", output, StringComparison.Ordinal);
    }
}
