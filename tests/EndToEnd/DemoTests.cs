using System.Diagnostics;
using Fleet.Tests.Shared;

namespace Fleet.EndToEnd.Tests;

public sealed class DemoTests
{
    [Theory]
    [InlineData("marker", "kvm")]
    [InlineData("trap", "kvm")]
    [InlineData("marker", "software")]
    [InlineData("trap", "software")]
    public async Task Demo_WholeStory_EveryAssertionHoldsAndTheExitCodeSaysSo(string policy, string vcpu)
    {
        Requires.Kvm();
        var demo = typeof(Demo.Running.Programs).Assembly.Location;
        using var process = Process.Start(new ProcessStartInfo("dotnet", [demo, "--policy", policy, "--vcpu", vcpu]) { RedirectStandardOutput = true })!;
        var output = await process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);

        Assert.True(process.ExitCode == 0, output);
        Assert.Contains("24 of 24 assertions held", output, StringComparison.Ordinal);
    }
}
