using System.Globalization;
using System.Text.RegularExpressions;
using Fleet.Api.Tests.Support;
using Fleet.Contracts.Pages;

namespace Fleet.Api.Tests;

/// <summary>GET /metrics over what really happened; other servers run in this process, so figures are compared with those before.</summary>
public sealed partial class MetricsTests
{
    [Fact]
    [Trait("Invariant", "I8")]
    public async Task Metrics_AfterAStory_CountWhatHappenedAndNameNoVm()
    {
        await using var world = await GateWorld.StartAsync();
        var before = await ReadAsync(world.Api.Admin);
        var vm = await world.VmAsync();
        await world.ReportAsync(world.A, TestAgent.Poison(1, vm, 7));
        await world.ReportAsync(world.A, TestAgent.Hit(1, vm, 7, count: 41));
        await world.ReportAsync(world.C, TestAgent.Poison(1, vm, 8));
        await world.A.BeatAsync();
        await world.GrantAsync();

        var text = await world.Api.Admin.GetStringAsync(new Uri("/metrics", UriKind.Relative));
        var after = await ReadAsync(world.Api.Admin);
        double Grown(string name) => after.GetValueOrDefault(name) - before.GetValueOrDefault(name);
        Assert.True(Grown("fleet_hits") >= 41, text);
        Assert.True(Grown("fleet_reports{kind=\"poison\"}") >= 1, text);
        Assert.True(Grown("fleet_reports_rejected{code=\"not-placed-here\"}") >= 1, text);
        Assert.True(Grown("fleet_heartbeats") >= 1, text);
        Assert.True(Grown("fleet_gate_latency_seconds_count") >= 1, text);
        Assert.True(Grown("fleet_writer_batch_count") >= 5, text);
        Assert.True(after["fleet_agents{state=\"online\"}"] >= 3, text);
        Assert.DoesNotContain(GateWorld.Vm, text, StringComparison.Ordinal);
    }

    /// <summary>Agents say a total, again and again; what was said before is not counted again, and another agent process begins at 0.</summary>
    [Fact]
    [Trait("Invariant", "I8")]
    public async Task Metrics_HitsThatHostsOnlyCounted_AreCountedOnce()
    {
        var entry = new Agents.HostEntry();
        Assert.Equal([5, 0, 3, 0], new[] { 5L, 5, 8, 7 }.Select(total => entry.CountUnreportedHits(1, total)));
        Assert.Equal([2, 1], new[] { 2L, 3 }.Select(total => entry.CountUnreportedHits(2, total)));

        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        double Of(Dictionary<string, double> metrics) => metrics.GetValueOrDefault("fleet_hits_unreported");
        var before = Of(await ReadAsync(api.Admin));
        (await agent.BeatAsync(70)).EnsureSuccessStatusCode();
        (await agent.BeatAsync(75)).EnsureSuccessStatusCode();
        Assert.True(Of(await ReadAsync(api.Admin)) - before is >= 75 and < 1000);
        await (await agent.BeatAsync(-1)).ProblemAsync(System.Net.HttpStatusCode.BadRequest, "invalid-request");
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Metrics_WithoutAToken_AreNotTold()
    {
        await using var api = await ApiHost.StartAsync();
        await (await api.Client(null).GetAsync(new Uri("/metrics", UriKind.Relative))).ProblemAsync(System.Net.HttpStatusCode.Unauthorized, "unauthenticated");
    }

    [Fact]
    public async Task Metrics_OfACommandThatIsRefused_DoNotGrow()
    {
        await using var api = await ApiHost.StartAsync();
        await api.Admin.CreateVmAsync("vm-1", null);
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await api.Admin.AddPagesAsync("vm-1", new PageReport(1, 12));
        var metrics = await ReadAsync(api.Admin);
        Assert.True(metrics.ContainsKey("fleet_writer_queue"));
        // A gap: refused whole, so that nothing of it counts.
        var refused = TestAgent.Hit(9, await api.Admin.GetVmAsync("vm-1"), 1, count: 1_000_000_000);
        await (await agent.SendAsync(refused)).ProblemAsync(System.Net.HttpStatusCode.Conflict, "spool-gap");
        Assert.True((await ReadAsync(api.Admin)).GetValueOrDefault("fleet_hits") < 1_000_000_000);
    }

    internal static async Task<Dictionary<string, double>> ReadAsync(HttpClient client)
    {
        var text = await client.GetStringAsync(new Uri("/metrics", UriKind.Relative));
        // Labels of the adapter aside: only those of the instrument are named here.
        return Sample().Matches(text).ToDictionary(match => match.Groups[1].Value, match => double.Parse(match.Groups[2].Value, CultureInfo.InvariantCulture));
    }

    [GeneratedRegex("^(fleet_[^ ]+) ([0-9.e+-]+|NaN)$", RegexOptions.Multiline)]
    private static partial Regex Sample();
}
