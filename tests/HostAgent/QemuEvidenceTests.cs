using System.Diagnostics.Metrics;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Attach.Qemu;
using Fleet.HostAgent.Metrics;
using Fleet.HostAgent.Spool;
using Fleet.Linux;
using Fleet.Tests.Shared;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Tests;

/// <summary>What QEMU tells of memory failures, by way of the whole agent. The events are of QEMU's form; only KVM brings real ones about.</summary>
public sealed class QemuEvidenceTests : IDisposable
{
    private const string Injected = """{"recipient":"guest","action":"inject","flags":{"action-required":false,"recursive":false}}""";

    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");
    private readonly TestVmm _vmm;
    private readonly string _socket;

    public QemuEvidenceTests()
    {
        Requires.Userfaultfd();
        _vmm = new TestVmm();
        _socket = Path.Combine(_root.FullName, "qmp");
    }

    [Fact]
    [Trait("Invariant", "I8")]
    public async Task MemoryFailure_OnePageArmed_BecomesItsHitWithACount()
    {
        using var qmp = new FakeQmp(_socket, _vmm.Memory.Address, _vmm.Bytes);
        await using var agent = await StartAsync(new PageKey(30, 12));

        qmp.SendEvent("MEMORY_FAILURE", Injected);
        qmp.SendEvent("MEMORY_FAILURE", Injected);

        await TestAgent.UntilAsync(() => Hits(agent).Sum(hit => hit.Count) == 2);
        Assert.All(Hits(agent), hit => Assert.Equal((30L, HitEvidences.Qmp, HitOutcomes.MceInjected, 1L), (hit.Frame, hit.Evidence, hit.Outcome, hit.PlacementEpoch)));
    }

    [Fact]
    [Trait("Invariant", "I8")]
    public async Task MemoryFailure_SeveralPagesArmed_IsCountedInTheMetric()
    {
        long counted = 0;
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, self) =>
            {
                if (instrument is { Meter.Name: QemuMeter.Name, Name: "hits.unplaced" })
                {
                    self.EnableMeasurementEvents(instrument);
                }
            },
        };
        listener.SetMeasurementEventCallback<long>((_, value, _, _) => Interlocked.Add(ref counted, value));
        listener.Start();
        using var qmp = new FakeQmp(_socket, _vmm.Memory.Address, _vmm.Bytes);
        using var logs = new CapturingLogs();
        await using var agent = await StartAsync(readsLog: false, logs, new PageKey(30, 12), new PageKey(40, 12));

        for (var failure = 1; failure <= 3; failure++)
        {
            qmp.SendEvent("MEMORY_FAILURE", Injected);
            await TestAgent.UntilAsync(() => Interlocked.Read(ref counted) == failure);
        }

        Assert.Empty(Hits(agent));
        // However fast the guest is.
        Assert.Single(logs.Ids, id => id == 2120);
    }

    [Fact]
    [Trait("Invariant", "I8")]
    public async Task MemoryFailure_WithQemusLog_IsAHitOfItsPageOrNewPoison()
    {
        var log = Path.Combine(_root.FullName, "vm-1.log");
        using var qmp = new FakeQmp(_socket, _vmm.Memory.Address, _vmm.Bytes);
        await using var agent = await StartAsync(readsLog: true, new PageKey(30, 12), new PageKey(40, 12));

        File.WriteAllText(log, "qemu: Guest MCE Memory Error at QEMU addr 0x7f00 and GUEST addr 0x28010 of type BUS_MCEERR_AR injected\n"
            + "qemu: Guest MCE Memory Error at QEMU addr 0x7f00 and GUEST addr 0x50000 of type BUS_MCEERR_AR injected\n");
        qmp.SendEvent("MEMORY_FAILURE", Injected);
        qmp.SendEvent("MEMORY_FAILURE", Injected);

        // The new poison with the fault of this host that is behind it.
        await TestAgent.UntilAsync(() => agent.Spool.Count == 3);
        Assert.Equal([AgentReport.Fault, AgentReport.Hit, AgentReport.Poison], agent.Spool.Peek(10).Select(report => report.Kind).Order());
        Assert.Equal((40L, 1L), (Hits(agent).Single().Frame, Hits(agent).Single().Count));
        var poison = agent.Spool.Peek(10).Single(report => report.Kind == AgentReport.Poison);
        Assert.Equal((80L, 12, "srar", 1L), (poison.Frame, poison.Shift, poison.Class, poison.MemoryInstance));
    }

    /// <summary>QEMU keeps nothing: what the spool does not take waits in the agent, whatever becomes of the connection.</summary>
    [Fact]
    [Trait("Invariant", "I8")]
    public async Task MemoryFailure_WhileTheSpoolIsFull_OutlivesTheConnection()
    {
        using var qmp = new FakeQmp(_socket, _vmm.Memory.Address, _vmm.Bytes);
        await using var agent = await StartAsync(readsLog: true, new PageKey(30, 12), new PageKey(40, 12));
        Fill(agent);

        await FailAsync(qmp);
        qmp.Disconnect();
        await TestAgent.UntilAsync(() => qmp.Connections == 2);
        var held = agent.Services.GetRequiredService<HeldBack>();
        await TestAgent.UntilAsync(() => held.Vms == 1);
        agent.Spool.Acknowledge(agent.Spool.Count);

        await TestAgent.UntilAsync(() => agent.Spool.Count == 2 && held.Vms == 0);
        Assert.Equal([(AgentReport.Poison, 80L), (AgentReport.Fault, 80L)], agent.Spool.Peek(10).Select(report => (report.Kind, report.Frame)));
    }

    [Fact]
    [Trait("Invariant", "I8")]
    public async Task MemoryFailure_WhileTheSpoolIsFullUntilTheAgentStops_IsCountedAndSaid()
    {
        long dropped = 0;
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, self) =>
            {
                if (instrument is { Meter.Name: AgentMeter.Name, Name: "reports.dropped" })
                {
                    self.EnableMeasurementEvents(instrument);
                }
            },
        };
        listener.SetMeasurementEventCallback<long>((_, value, tags, _) => Interlocked.Add(ref dropped, tags[0].Value is "stopped" ? value : 0));
        listener.Start();
        using var logs = new CapturingLogs();
        using var qmp = new FakeQmp(_socket, _vmm.Memory.Address, _vmm.Bytes);
        await using (var agent = await StartAsync(readsLog: true, logs, new PageKey(30, 12), new PageKey(40, 12)))
        {
            Fill(agent);
            await FailAsync(qmp);
            await TestAgent.UntilAsync(() => agent.Services.GetRequiredService<HeldBack>().Vms == 1);
        }

        Assert.Single(logs.Ids, id => id == 2305);
        Assert.True(Interlocked.Read(ref dropped) >= 1);
    }

    /// <summary>Nothing is wrong with QEMU then; and it is tried again and again.</summary>
    [Fact]
    public async Task Attach_WhereTheJournalIsDamaged_SaysSoAndNotThatQmpFailed()
    {
        Directory.CreateDirectory(Path.Combine(_root.FullName, "attached"));
        await File.WriteAllTextAsync(Path.Combine(_root.FullName, "attached", "vm-1.json"), "{", TestContext.Current.CancellationToken);
        using var logs = new CapturingLogs();
        using var qmp = new FakeQmp(_socket, _vmm.Memory.Address, _vmm.Bytes);
        await using var agent = await TestAgent.StartAsync(
            _root.FullName, Settings().ToDictionary(setting => setting.Name, setting => (string?)setting.Value), services => services.AddSingleton<ILoggerFactory>(logs), Vm());

        await TestAgent.UntilAsync(() => qmp.Connections >= 2);
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Status?.Reason == "state-folder-failed");

        Assert.DoesNotContain(2133, logs.Ids);
        Assert.Single(logs.Ids, id => id == 2131);
    }

    [Fact]
    public async Task Attach_SocketOfAProcessWithoutTheMemory_IsRefusedAndTheProcessUntouched()
    {
        var before = UserfaultfdsOf();
        using var qmp = new FakeQmp(_socket, 0x10000, _vmm.Bytes);
        await using var agent = await TestAgent.StartAsync(_root.FullName, "marker", Settings(), [Vm()]);

        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Status?.Reason == "not-mapped");

        Assert.Null(agent.Table.Find("vm-1")!.Attachment);
        Assert.Equal(before, UserfaultfdsOf());
    }

    public void Dispose()
    {
        _vmm.Dispose();
        _root.Delete(recursive: true);
    }

    private static int UserfaultfdsOf() => QemuDescriptors.Of(Environment.ProcessId).Count(descriptor => descriptor.Link == "anon_inode:[userfaultfd]");

    private static List<AgentReport> Hits(TestAgent agent) => [.. agent.Spool.Peek(100).Where(report => report.Kind == AgentReport.Hit)];

    private IEnumerable<(string Name, string Value)> Settings(bool readsLog = false) =>
        [("Agent:AllowedPaths", _root.FullName), .. readsLog ? [("Agent:QemuLogFolder", _root.FullName)] : Array.Empty<(string, string)>()];

    private DesiredVm Vm(params PageKey[] pages) => TestAgent.Vm(_vmm, 1, pages) with { Attach = new VmAttach(AttachKinds.Qemu, QmpSocket: _socket) };

    // A line that names a page that nobody knew of, and the event.
    private async Task FailAsync(FakeQmp qmp)
    {
        await File.WriteAllTextAsync(
            Path.Combine(_root.FullName, "vm-1.log"), "qemu: Guest MCE Memory Error at QEMU addr 0x7f00 and GUEST addr 0x50000 of type BUS_MCEERR_AR injected\n");
        qmp.SendEvent("MEMORY_FAILURE", Injected);
    }

    // To its bound.
    private static void Fill(TestAgent agent)
    {
        var report = new AgentReport(
            0, AgentReport.Poison, "vm-9", 1, 7, 12, "srar", "vmm", null, DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch, 1, null, null, null, null);
        while (agent.Spool.TryAppend([.. Enumerable.Repeat(report, 20)]))
        {
        }
    }

    private Task<TestAgent> StartAsync(params PageKey[] pages) => StartAsync(readsLog: false, pages);

    private Task<TestAgent> StartAsync(bool readsLog, params PageKey[] pages) => StartAsync(readsLog, null, pages);

    private async Task<TestAgent> StartAsync(bool readsLog, CapturingLogs? logs, params PageKey[] pages)
    {
        var settings = Settings(readsLog).ToDictionary(setting => setting.Name, setting => (string?)setting.Value);
        settings["Agent:SpoolBytes"] = "65536";
        var agent = await TestAgent.StartAsync(_root.FullName, settings, services => _ = logs is null ? services : services.AddSingleton<ILoggerFactory>(logs), Vm(pages));
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Status?.State == EnforcementStates.Armed);
        Assert.All(pages, page => Assert.Equal(Errno.EFAULT, _vmm.Read(page.Frame).Error));
        return agent;
    }
}
