using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Faults;
using Fleet.Contracts.Handoff;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.State;
using Fleet.Linux.Tracing;
using Fleet.Tests.Shared;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging.Abstractions;

namespace Fleet.HostAgent.Tests;

/// <summary>Memory errors of the host: each once, whoever saw it. The kernel's own poison is in tests/Lab: the kernels of CI machines may lack it.</summary>
public sealed class DetectionTests : IDisposable
{
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fleet-detect-");

    [Fact]
    public void New_ErrorSeenByVmmThenByKernelThenAgain_IsOneFault()
    {
        var page = new FaultPage("vm-1", 1, 8, 12);
        using (var life = new Life(_root))
        {
            Assert.Single(life.Faults.New([new HostFault(null, page), new HostFault(null, page)]));
            life.Faults.Told([new HostFault(null, page)]);

            // The kernel's event, a look at the page tables, and the frame alone once the VMM is gone.
            Assert.Empty(life.Faults.New([new HostFault(0x1234, page)]));
            life.Faults.Told([new HostFault(0x1234, page)]);
            Assert.Empty(life.Faults.New([new HostFault(0x1234, null)]));
        }

        // In the agent's next life, which finds the page again.
        using var next = new Life(_root);
        Assert.Empty(next.Faults.New([new HostFault(0x1234, page), new HostFault(0x1234, null), new HostFault(null, page)]));
        Assert.Single(next.Faults.New([new HostFault(0x1235, page with { Frame = 9 })]));
        Assert.Single(next.Faults.New([new HostFault(0x1236, null)]));
    }

    [Fact]
    public void New_SeenByTheKernelFirst_TheVmmsWordIsNoSecondFault()
    {
        var page = new FaultPage("vm-1", 1, 8, 12);
        using var life = new Life(_root);
        var fault = Assert.Single(life.Faults.New([new HostFault(0x1234, page)]));
        life.Faults.Told([fault]);

        Assert.Empty(life.Faults.New([new HostFault(null, page)]));
        // Not told: it is found again, as after a full spool.
        Assert.Single(life.Faults.New([new HostFault(0x99, null)]));
        Assert.Single(life.Faults.New([new HostFault(0x99, null)]));
    }

    [Fact]
    public void Journal_OfAnotherBoot_KnowsNoFramesAndCountsCorrectedErrorsFromZero()
    {
        using (var life = new Life(_root))
        {
            life.Faults.Told([new HostFault(0x1234, null)]);
            life.Faults.ToldCorrected(new Dictionary<string, long> { ["mc0/dimm0"] = 7 });
            Assert.Equal(0, life.Faults.NewCorrected("mc0/dimm0", 7));
        }

        var path = Path.Combine(_root.FullName, "faults");
        File.WriteAllText(path, File.ReadAllText(path).Replace(Fleet.Linux.Processes.KernelInfo.BootId, "another", StringComparison.Ordinal));
        using var next = new Life(_root);
        Assert.Single(next.Faults.New([new HostFault(0x1234, null)]));
        Assert.Equal(7, next.Faults.NewCorrected("mc0/dimm0", 7));
    }

    [Fact]
    public void Report_WithoutVm_NamesNone()
    {
        using var life = new Life(_root);
        var report = life.Faults.Report(new HostFault(0x1234, null));
        Assert.Equal((AgentReport.Fault, null, 0L, 0L), (report.Kind, report.Vm, report.MemoryInstance, report.Frame));
        Assert.Equal(new MemoryFault(FaultKinds.Uncorrected, null, 0x1234), report.MemoryFault);
    }

    [Fact]
    [Trait("Invariant", "I5")]
    public async Task VmmSaysPoisonTwice_TheHostHasOneFault()
    {
        Requires.Userfaultfd();
        using var vmm = new TestVmm();
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 5, new PageKey(10, 12)));
        using var channel = await agent.AttachAsync(vmm);
        channel.SendEvent(Poison(1, 30));
        channel.SendEvent(Poison(2, 30));
        // A page that came with the guest: its marker is no error of this host.
        channel.SendEvent(Poison(3, 10));
        await TestAgent.UntilAsync(() => agent.Spool.Peek(10).Count(report => report.Kind == AgentReport.Poison) == 3);

        var fault = Assert.Single(agent.Spool.Peek(10), report => report.Kind == AgentReport.Fault);
        Assert.Equal(("vm-1", 1L, 30L, 1L), (fault.Vm, fault.MemoryInstance, fault.Frame, fault.Count));
        Assert.Equal(new MemoryFault(FaultKinds.Uncorrected, null, null), fault.MemoryFault);
    }

    [Fact]
    public async Task ErrorOfAFrameThatIsNoVms_IsTheHostsAlone_AndOnce()
    {
        Requires.Userfaultfd();
        using var vmm = new TestVmm();
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 5, new PageKey(10, 12)));
        using var channel = await agent.AttachAsync(vmm);
        agent.Detection.Add([new MemoryFailureEvent(0x12345, "dirty LRU page", "Recovered"), new MemoryFailureEvent(0x12345, "dirty LRU page", "Recovered")]);
        agent.Detection.Add([new MemoryFailureEvent(0x12345, "dirty LRU page", "Recovered")]);
        agent.Detection.Add([new MemoryFailureEvent(0x12346, "free buddy page", "Recovered")]);
        await TestAgent.UntilAsync(() => agent.Spool.Count == 2);

        Assert.Equal(
            [(AgentReport.Fault, null, 0x12345L), (AgentReport.Fault, null, 0x12346L)],
            agent.Spool.Peek(10).Select(report => (report.Kind, report.Vm, report.MemoryFault?.PhysicalFrame ?? 0)));
    }

    /// <summary>What was reported is known to this agent; the disk is told as soon as it listens.</summary>
    [Fact]
    [Trait("Invariant", "I5")]
    public async Task ErrorWhoseJournalCannotBeWritten_IsReportedOnce_AndSoIsTheNext()
    {
        Directory.CreateDirectory(Path.Combine(_root.FullName, "faults.tmp"));
        await using (var agent = await TestAgent.StartAsync(_root.FullName))
        {
            agent.Detection.Add([new MemoryFailureEvent(0x12345, "dirty LRU page", "Recovered")]);
            await TestAgent.UntilAsync(() => agent.Spool.Count == 1);
            Directory.Delete(Path.Combine(_root.FullName, "faults.tmp"));
            agent.Detection.Add([new MemoryFailureEvent(0x12346, "dirty LRU page", "Recovered")]);
            await TestAgent.UntilAsync(() => agent.Spool.Count == 2);
            Assert.Equal([0x12345, 0x12346], agent.Spool.Peek(10).Select(report => report.MemoryFault!.PhysicalFrame));
            await TestAgent.UntilAsync(() => File.Exists(Path.Combine(_root.FullName, "faults")));
        }

        using var next = new Life(_root);
        Assert.Empty(next.Faults.New([new HostFault(0x12345, null), new HostFault(0x12346, null)]));
    }

    [Theory]
    [InlineData("")]
    [InlineData("{")]
    [InlineData("{}")]
    [InlineData("null")]
    public void Journal_Damaged_IsBegunAnew(string content)
    {
        File.WriteAllText(Path.Combine(_root.FullName, "faults"), content);
        using (var life = new Life(_root))
        {
            life.Faults.Told([new HostFault(0x12345, null)]);
        }

        using var next = new Life(_root);
        Assert.Empty(next.Faults.New([new HostFault(0x12345, null)]));
    }

    /// <summary>Neither markers, nor holes, nor ordinary pages, mapped or not, are this host's poison.</summary>
    [Fact]
    public async Task Find_HealthyMemoryWithMarkersAndHoles_FindsNothing()
    {
        Requires.Userfaultfd();
        using var vmm = new TestVmm();
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 5, new PageKey(10, 12), new PageKey(512, 21)));
        using var channel = await agent.AttachAsync(vmm);
        vmm.Fill(20, 1);
        vmm.Fill(21, 1);
        vmm.Memory.Advise(21 * TestVmm.PageBytes, TestVmm.PageBytes, Linux.Memory.MemoryAdvice.DontNeed);
        var attachment = agent.Table.Find("vm-1")!.Attachment!;

        Assert.Empty(NativePages.Find(attachment));
        Assert.Empty(NativePages.FindUnmapped(attachment));
        Assert.Empty(NativePages.At(attachment, new PageKey(512, 21)));
    }

    /// <summary>The spool takes nothing when the page is found: what was noted of it before must not pass for its report.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Trait("Invariant", "I2")]
    [Trait("Invariant", "I8")]
    public async Task Found_WhileTheSpoolIsFull_IsReportedOnceThereIsRoom(bool byTheNextAgent)
    {
        Requires.Userfaultfd();
        using var vmm = new TestVmm();
        var vm = TestAgent.Vm(vmm, 5, new PageKey(10, 12));
        await using var first = await StartWithSmallSpoolAsync("65536", vm);
        using var channel = await first.AttachAsync(vmm);
        while (first.Spool.TryAppend([.. Enumerable.Repeat(Hit(), 20)]))
        {
        }

        Find(first, 30);
        await RefusedAsync(first, 30);
        Assert.DoesNotContain(first.Spool.Peek(10_000), report => report.Kind == AgentReport.Poison);

        TestAgent agent = first;
        if (byTheNextAgent)
        {
            // The disk as a kill -9 leaves it between the journal and the spool.
            await first.DisposeAsync();
            agent = await StartWithSmallSpoolAsync("1000000");
            await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Attachment is not null);
            Find(agent, 30);
        }
        else
        {
            agent.Spool.Acknowledge(agent.Spool.Peek(1)[0].Sequence + (agent.Spool.Count / 2));
        }

        await using var last = agent;
        await TestAgent.UntilAsync(() => agent.Spool.Peek(10_000).Any(report => report.Kind == AgentReport.Fault));
        // Found again, with nothing new in it.
        Find(agent, 30);
        Find(agent, 31);
        await TestAgent.UntilAsync(() => agent.Spool.Peek(10_000).Any(report => report is { Kind: AgentReport.Fault, Frame: 31 }));
        Assert.Equal([30, 31], agent.Spool.Peek(10_000).Where(report => report.Kind == AgentReport.Poison).Select(report => report.Frame));
    }

    [Fact]
    public void CapabilityTable_SaysWhatDetectionIsMadeOf()
    {
        var table = CapabilityProbe.Table();
        Assert.Contains(table["detection"], new[] { "kernel", "vmm" });
        Assert.Equal(table["detection"] == "kernel", table["detection.events"] == "yes" && table["detection.page-tables"] == "yes");
        Assert.All([table["detection.events"], table["detection.page-tables"]], value => Assert.True(value == "yes" || value.StartsWith("no: ", StringComparison.Ordinal), value));
    }

    public void Dispose() => _root.Delete(recursive: true);

    private Task<TestAgent> StartWithSmallSpoolAsync(string bytes, params DesiredVm[] desired) =>
        TestAgent.StartAsync(_root.FullName, "marker", [("Agent:SpoolBytes", bytes)], desired);

    /// <summary>Has the agent find the frame poisoned by this host's memory.</summary>
    private static void Find(TestAgent agent, long frame)
    {
        agent.Services.GetServices<IHostedService>().OfType<DetectionService>().Single().Find = _ => [new NativePage(new PageKey(frame, 12), 0x1000 + frame)];
        agent.Detection.Add("vm-1");
    }

    private static async Task RefusedAsync(TestAgent agent, long frame)
    {
        var entry = agent.Table.Find("vm-1")!;
        await TestAgent.UntilAsync(() => entry.Attachment!.Reported.Overlaps(new Enforce.FrameRange(frame, frame + 1)));
        // Noted and refused under one hold of the gate.
        await entry.Gate.WaitAsync(TestContext.Current.CancellationToken);
        entry.Gate.Release();
    }

    private static AgentReport Hit() =>
        new(0, AgentReport.Hit, "vm-1", 1, 10, null, null, null, 1, DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch, 1, null, null, null, null);

    private static VmmEvent Poison(long sequence, long frame) =>
        new(VmmEvent.Poison, sequence, HexAddress.Format(FrameMath.AddressOf(frame)), 12, "srar", null, null, 1, DateTimeOffset.UnixEpoch);

    private sealed class Life : IDisposable
    {
        private readonly StateFolder _folder;

        public Life(DirectoryInfo root)
        {
            _folder = new StateFolder(Microsoft.Extensions.Options.Options.Create(new AgentOptions { Host = "host-a", StateFolder = root.FullName }));
            Faults = new HostFaults(new FaultJournal(_folder, NullLogger<FaultJournal>.Instance), new MemoryModules(new HardwareRoots("/nowhere", "/nowhere")), TimeProvider.System);
        }

        public HostFaults Faults { get; }

        public void Dispose() => _folder.Dispose();
    }
}
