using System.Diagnostics.Metrics;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Attach.Qemu;
using Fleet.Linux;
using Fleet.Tests.Shared;

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
        await using var agent = await StartAsync(new PageKey(30, 12), new PageKey(40, 12));

        qmp.SendEvent("MEMORY_FAILURE", Injected);

        await TestAgent.UntilAsync(() => Interlocked.Read(ref counted) == 1);
        Assert.Empty(Hits(agent));
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

    private Task<TestAgent> StartAsync(params PageKey[] pages) => StartAsync(readsLog: false, pages);

    private async Task<TestAgent> StartAsync(bool readsLog, params PageKey[] pages)
    {
        var agent = await TestAgent.StartAsync(_root.FullName, "marker", Settings(readsLog), [Vm(pages)]);
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Status?.State == EnforcementStates.Armed);
        Assert.All(pages, page => Assert.Equal(Errno.EFAULT, _vmm.Read(page.Frame).Error));
        return agent;
    }
}
