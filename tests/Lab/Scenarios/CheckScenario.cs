using System.Text.Json;
using Fleet.Lab.Tests.Running;

namespace Fleet.Lab.Tests.Scenarios;

/// <summary>(a) <c>fleet-agent check</c> on a distribution's kernel: what it says that this host can do.</summary>
[Collection("lab")]
[Trait("Quick", "yes")]
public sealed class CheckScenario(LabWorld world)
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact(Timeout = 300_000)]
    public async Task Check_OnADistributionKernel_CanDetectObserveAndEnforceEveryKindOfMemory()
    {
        world.Transcript.Chapter("(a) fleet-agent check");
        var (code, text) = await world.Host1.Shell.TryAsync("fleet-agent check", Cancelled);
        world.Transcript.Quote(text);
        Assert.Equal(0, code);

        using var report = JsonDocument.Parse(await world.Host1.Shell.RunAsync("fleet-agent check --json", Cancelled));
        var capabilities = report.RootElement.GetProperty("capabilities");
        Assert.Equal("kernel", capabilities.GetProperty("detection").GetString());
        Assert.Equal("kernel", capabilities.GetProperty("observation").GetString());
        Assert.Equal("yes", capabilities.GetProperty("observation.kvm-page-fault").GetString());
        Assert.Equal("yes", capabilities.GetProperty("observation.user-page-fault").GetString());
        foreach (var memory in new[] { "memfd", "hugetlb" })
        {
            Assert.Contains(report.RootElement.GetProperty("cells").EnumerateArray(), cell => cell.GetProperty("memory").GetString() == memory
                && cell.GetProperty("zap").GetString() == "punch-hole" && cell.GetProperty("policy").GetString() == "marker" && cell.GetProperty("able").GetBoolean());
        }
    }

    /// <summary>What it says depends on what it tried: with fewer rights it says that nothing can be enforced.</summary>
    [Fact(Timeout = 300_000)]
    public async Task Check_WithoutRights_SaysThatNothingCanBeEnforced()
    {
        var (code, text) = await world.Host1.Shell.TryAsync("unshare -U fleet-agent check", Cancelled);
        Assert.Equal(69, code);
        Assert.Contains("CANNOT be enforced", text, StringComparison.Ordinal);
    }
}
