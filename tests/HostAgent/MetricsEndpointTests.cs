using System.Diagnostics.Metrics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.HostAgent.Metrics;
using Fleet.HostAgent.Options;
using Fleet.Tests.Shared;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.HostAgent.Tests;

/// <summary>GET /metrics of the agent, over a real socket.</summary>
public sealed class MetricsEndpointTests : IDisposable
{
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");
    private readonly TestVmm _vmm;

    public MetricsEndpointTests()
    {
        Requires.Userfaultfd();
        _vmm = new TestVmm();
    }

    [Fact]
    public async Task Metrics_ArmedVmAndAHit_AreCounted()
    {
        await using var agent = await StartAsync();
        var before = await ScrapeAsync(agent);
        using var channel = await agent.AttachAsync(_vmm);
        channel.SendEvent(new VmmEvent(VmmEvent.MceInjected, 1, HexAddress.Format(FrameMath.AddressOf(5)), null, null, "read", 0, 3, DateTimeOffset.UnixEpoch));
        Assert.Equal(AgentLine.Acknowledged, (await channel.ReceiveAsync())?.Type);
        _vmm.File.PunchHole(6 * TestVmm.PageBytes, TestVmm.PageBytes);
        _vmm.Memory.Advise(6 * TestVmm.PageBytes, TestVmm.PageBytes, Linux.Memory.MemoryAdvice.DontNeed);
        await agent.LookAsync("vm-1");

        var after = await ScrapeAsync(agent);

        Assert.Equal(3, after["fleet_agent_hits_spooled_total"] - before["fleet_agent_hits_spooled_total"]);
        Assert.Equal(1, after["fleet_agent_markers_lost_total"] - before["fleet_agent_markers_lost_total"]);
        Assert.Equal((0, 2, 1), (before["fleet_agent_armed_frames"], after["fleet_agent_armed_frames"], after["fleet_agent_vms{state=\"armed\"}"]));
        Assert.Equal((2, 0, 0), (after["fleet_agent_spool_reports"], after["fleet_agent_spool_held_back"], after["fleet_agent_control_plane_connected"]));
        Assert.True(after["fleet_agent_reconcile_seconds_count"] > before.GetValueOrDefault("fleet_agent_reconcile_seconds_count"));
        Assert.Equal(after["fleet_agent_reconcile_seconds_count"], after["fleet_agent_reconcile_seconds_bucket{le=\"+Inf\"}"]);
        Assert.InRange(after["fleet_agent_process_open_files"], 10, 1000);
    }

    /// <summary>The spool holds its lock through an fsync, and a scrape asks the spool: neither may wait for the other's lock with its own held.</summary>
    [Fact]
    public async Task Metrics_ScrapedWhileReportsAreSpooled_BothGoOn()
    {
        await using var agent = await StartAsync();
        using var ended = new CancellationTokenSource();
        var appending = Enumerable.Range(0, 4).Select(_ => Task.Factory.StartNew(Append, TaskCreationOptions.LongRunning)).ToList();
        await Task.Run(ScrapeAllAsync, TestContext.Current.CancellationToken).WaitAsync(TimeSpan.FromMinutes(5), TestContext.Current.CancellationToken);
        await ended.CancelAsync();
        await Task.WhenAll(appending).WaitAsync(TimeSpan.FromMinutes(1), TestContext.Current.CancellationToken);

        Assert.Equal(agent.Spool.Count, (await ScrapeAsync(agent))["fleet_agent_spool_reports"]);

        void Append()
        {
            while (!ended.IsCancellationRequested)
            {
                agent.Spool.TryAppend([Report()]);
            }
        }

        async Task ScrapeAllAsync()
        {
            for (var scrape = 0; scrape < 300; scrape++)
            {
                await ScrapeAsync(agent);
            }
        }
    }

    /// <summary>Whoever is asked for a value may be waiting for somebody who counts.</summary>
    [Fact]
    public async Task Metrics_WhileAValueIsAskedFor_TakeCounts()
    {
        await using var agent = await StartAsync();
        await ScrapeAsync(agent);
        using var meter = new Meter(new MeterOptions(AgentMeter.Name) { Scope = agent.Services.GetRequiredService<AgentGauges>() });
        var counter = meter.CreateCounter<long>("test.counted");
        meter.CreateObservableGauge("test.asked", () => Task.Run(() => counter.Add(2)).Wait(TimeSpan.FromSeconds(20)) ? 1 : 0); // allowed: the deadlock that is guarded against

        var after = await ScrapeAsync(agent);

        Assert.Equal((1, 2), (after["fleet_agent_test_asked"], after["fleet_agent_test_counted_total"]));
    }

    [Fact]
    public async Task Metrics_NotSet_NobodyListens()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1));

        Assert.Null(await agent.Services.GetRequiredService<MetricsEndpoint>().ListeningAsync());
    }

    [Theory]
    [InlineData("GET / HTTP/1.1\r\n\r\n", "404")]
    [InlineData("POST /metrics HTTP/1.1\r\n\r\n", "405")]
    [InlineData("hello\r\n\r\n", "400")]
    public async Task Metrics_OtherRequests_AreRefused(string request, string status)
    {
        await using var agent = await StartAsync();

        Assert.StartsWith($"HTTP/1.1 {status} ", await AskAsync(agent, request), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("0.0.0.0:9482")]
    [InlineData("192.0.2.1:9482")]
    [InlineData("localhost:9482")]
    [InlineData("9482")]
    public void Options_MetricsBeyondLoopback_AreRefused(string address)
    {
        var options = new AgentOptions { Host = "host-a", ControlPlane = "http://127.0.0.1:1", Metrics = address };

        Assert.Contains(new AgentOptionsValidator().Validate(null, options).Failures ?? [], failure => failure.Contains("Agent:Metrics", StringComparison.Ordinal));
    }

    public void Dispose()
    {
        _vmm.Dispose();
        _root.Delete(recursive: true);
    }

    private Task<TestAgent> StartAsync() => TestAgent.StartAsync(
        _root.FullName, new Dictionary<string, string?> { ["Agent:Metrics"] = "127.0.0.1:0" }, null, TestAgent.Vm(_vmm, 1, new PageKey(5, 12), new PageKey(6, 12)));

    private static async Task<Dictionary<string, double>> ScrapeAsync(TestAgent agent)
    {
        var answer = await AskAsync(agent, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        Assert.StartsWith("HTTP/1.1 200 ", answer, StringComparison.Ordinal);
        return answer[answer.IndexOf("\r\n\r\n", StringComparison.Ordinal)..].Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)
            .Where(line => line[0] != '#')
            .ToDictionary(line => line[..line.LastIndexOf(' ')], line => double.Parse(line[line.LastIndexOf(' ')..], System.Globalization.CultureInfo.InvariantCulture));
    }

    private static AgentReport Report() =>
        new(0, AgentReport.Hit, "vm-1", 1, 5, null, null, null, 1, DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch, 1, "read", 0, "vmm", "unknown");

    private static async Task<string> AskAsync(TestAgent agent, string request)
    {
        var endpoint = await agent.Services.GetRequiredService<MetricsEndpoint>().ListeningAsync();
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        await socket.ConnectAsync((EndPoint)endpoint!, TestContext.Current.CancellationToken);
        await socket.SendAsync(Encoding.ASCII.GetBytes(request));
        using var reader = new StreamReader(new NetworkStream(socket));
        return await reader.ReadToEndAsync(TestContext.Current.CancellationToken);
    }
}
