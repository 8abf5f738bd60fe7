using System.Diagnostics.Metrics;
using System.Text.Json;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Metrics;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace Fleet.HostAgent.Tests;

/// <summary>Answers that are not the control plane's, or that it should not give: the agent lives, says it, and asks again.</summary>
public sealed class ForeignAnswerTests : IDisposable
{
    private static readonly PageKey[] Pages = [new PageKey(5, 12)];
    private static readonly DesiredVm Vm = new(
        "vm-1", "host-a", [new MemoryRegion("0x0", 1 << 26, 4096)], new VmAttach(AttachKinds.Handoff), 1, 2, 1, PoisonDigest.Compute("vm-1", 1, Pages), Pages);

    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    [Trait("Invariant", "I6")]
    public async Task PageOfAProxy_AtClaimAndHeartbeat_IsAskedAgain(bool isSuccess)
    {
        var page = isSuccess ? StubControlPlane.SignInPage : StubControlPlane.ProxyPage;
        using var logs = new CapturingLogs();
        await using var server = new StubControlPlane((path, before) => before < 2 && path != StubControlPlane.Reports ? page : StubControlPlane.Usual(path));
        await using var agent = await server.StartAgentAsync(_root.FullName, logs);
        var heartbeats = agent.Services.GetRequiredService<Heartbeats>();

        await TestAgent.UntilAsync(() => heartbeats.Connected);

        Assert.False(agent.Services.GetRequiredService<IHostApplicationLifetime>().ApplicationStopping.IsCancellationRequested);
        Assert.True(server.Asked(StubControlPlane.Claim) >= 3 && server.Asked(StubControlPlane.Heartbeat) >= 3);
        Assert.DoesNotContain(1634, logs.Ids);
        Assert.Contains(1632, logs.Ids);
    }

    /// <summary>The reports stay, in their order: among them may be a seal. It is said that none arrives, once, and counted.</summary>
    [Fact]
    [Trait("Invariant", "I8")]
    public async Task ReportsRefusedAsMalformed_AreSaidOnceCountedAndSentAgain()
    {
        long refused = 0;
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, self) =>
            {
                if (instrument.Meter.Name == AgentMeter.Name && instrument.Name == "report.requests.refused")
                {
                    self.EnableMeasurementEvents(instrument);
                }
            },
        };
        listener.SetMeasurementEventCallback<long>((_, value, _, _) => Interlocked.Add(ref refused, value));
        listener.Start();
        using var logs = new CapturingLogs();
        await using var server = new StubControlPlane((path, before) =>
            path == StubControlPlane.Reports && before < 4 ? new StubControlPlane.Answer(400, "application/problem+json", """{"code":"validation"}""") : StubControlPlane.Usual(path));
        await using var agent = await server.StartAgentAsync(_root.FullName, logs);

        agent.Spool.TryAppend([new AgentReport(
            0, AgentReport.Poison, "vm-1", 1, 1, 12, "srar", "vmm", null, DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch, 1, null, null, null, null)]);
        await TestAgent.UntilAsync(() => agent.Spool.Count == 0);

        Assert.Equal(4, Interlocked.Read(ref refused));
        Assert.Single(logs.Ids, id => id == 2300);
    }

    /// <summary>A disk that fails is no reason to end the conversation with the control plane, let alone the agent.</summary>
    [Fact]
    [Trait("Invariant", "I6")]
    public async Task DesiredStateThatCannotBeWritten_IsAskedForAgain()
    {
        var route = Routes.DesiredVm("host-a", "vm-1");
        using var logs = new CapturingLogs();
        await using var server = new StubControlPlane((path, _) =>
            path == route ? new StubControlPlane.Answer(200, "application/json", JsonSerializer.Serialize(Vm, FleetJson.Default.DesiredVm))
            : path == StubControlPlane.Heartbeat ? new StubControlPlane.Answer(200, "application/json", """{"heartbeatInterval":"1s","refetch":["vm-1"]}""")
            : StubControlPlane.Usual(path));
        var obstacle = Directory.CreateDirectory(Path.Combine(_root.FullName, "desired", "vm-1.json.tmp"));
        await using var agent = await server.StartAgentAsync(_root.FullName, logs);

        await TestAgent.UntilAsync(() => server.Asked(route) >= 2);
        Assert.Null(agent.Table.Find("vm-1")?.Desired);
        obstacle.Delete();

        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Desired?.Generation == 2);
        Assert.False(agent.Services.GetRequiredService<IHostApplicationLifetime>().ApplicationStopping.IsCancellationRequested);
    }

    /// <summary>A VM that the control plane does not know any more concerns this host no more; a page that says 404 says nothing of VMs.</summary>
    [Fact]
    [Trait("Invariant", "I6")]
    public async Task NotFound_OfAProxy_ForgetsNoVm()
    {
        Directory.CreateDirectory(Path.Combine(_root.FullName, "desired"));
        await File.WriteAllTextAsync(
            Path.Combine(_root.FullName, "desired", "vm-1.json"), JsonSerializer.Serialize(Vm, FleetJson.Default.DesiredVm), TestContext.Current.CancellationToken);
        var route = Routes.DesiredVm("host-a", "vm-1");
        var isProxy = true;
        using var logs = new CapturingLogs();
        await using var server = new StubControlPlane((path, _) =>
            path == route ? Volatile.Read(ref isProxy) ? new StubControlPlane.Answer(404, "text/html", "<html>Not here</html>") : new StubControlPlane.Answer(404, "application/problem+json", """{"code":"unknown-vm"}""")
            : path == StubControlPlane.Heartbeat ? new StubControlPlane.Answer(200, "application/json", """{"heartbeatInterval":"1s","refetch":["vm-1"]}""")
            : StubControlPlane.Usual(path));
        await using var agent = await server.StartAgentAsync(_root.FullName, logs);

        // The second is asked for when the first was dealt with.
        await TestAgent.UntilAsync(() => server.Asked(route) >= 2);
        Assert.NotNull(agent.Table.Find("vm-1")?.Desired);
        Volatile.Write(ref isProxy, false);

        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Desired is null);
    }

    [Fact]
    public async Task Outage_OfOneConversation_IsSaidOnce()
    {
        using var logs = new CapturingLogs();
        await using var server = new StubControlPlane((path, _) => StubControlPlane.Usual(path));
        await using var agent = await server.StartAgentAsync(_root.FullName, logs);

        await TestAgent.UntilAsync(() => server.Asked("/v1/hosts/host-a/desired") >= 4);

        Assert.Single(logs.Ids, id => id == 1632);
    }

    public void Dispose() => _root.Delete(recursive: true);
}
