using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.Spool;
using Fleet.HostAgent.State;
using Fleet.Linux;
using Fleet.Linux.Processes;
using Fleet.Tests.Shared;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Fleet.HostAgent.Tests;

/// <summary>A real disk that is full or read-only under the agent: enforcement goes on, nothing is lost, and it is said once.</summary>
public sealed class SpoolDiskTests
{
    private static readonly ProcessIdentity Vmm = ProcessIdentity.Of(Environment.ProcessId)!;

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Append_DiskFull_TakesNothingAndGoesOnWithRoom()
    {
        await using var disk = await SmallDisk.MountAsync();
        using (var folder = Folder(disk))
        {
            var spool = Open(folder);
            Assert.True(spool.TryAppend([Report(1)], new VmmWatermark(Vmm, 1)));
            disk.Fill();

            // Until what was left of the last block is used up.
            var taken = 1;
            while (Try(() => spool.TryAppend([Report(++taken)], new VmmWatermark(Vmm, taken))))
            {
            }

            taken--;
            Assert.Equal((taken, taken), (spool.Count, spool.LastEvent(Vmm)));
            Assert.Throws<IOException>(() => spool.StartOver());
            disk.Empty();
            Assert.True(spool.TryAppend([Report(99)], new VmmWatermark(Vmm, 99)));
            Assert.Empty(Directory.EnumerateFiles(folder.Spool, "*.tmp"));
        }

        using var again = Folder(disk);
        var reports = Open(again).Peek(1000);
        Assert.Equal(Enumerable.Range(1, reports.Count).Select(i => (long)i), reports.Select(report => report.Sequence));
        Assert.Equal(99, reports[^1].Frame);
    }

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Append_DiskReadOnly_TakesNothingAndGoesOnWhenItIsWritable()
    {
        await using var disk = await SmallDisk.MountAsync();
        using var folder = Folder(disk);
        var spool = Open(folder);
        Assert.True(spool.TryAppend([Report(1)], new VmmWatermark(Vmm, 1)));
        await disk.RemountAsync(readOnly: true);

        Assert.Throws<IOException>(() => spool.TryAppend([Report(2)], new VmmWatermark(Vmm, 2)));
        Assert.Equal((1, 1L), (spool.Count, spool.LastEvent(Vmm)));

        await disk.RemountAsync(readOnly: false);
        Assert.True(spool.TryAppend([Report(2)], new VmmWatermark(Vmm, 2)));
        Assert.Equal([1L, 2], Open(folder).Peek(10).Select(report => report.Sequence));
    }

    /// <summary>Somebody cleans up the state folder of a running agent: what waits is written again, not forgotten.</summary>
    [Fact]
    public async Task Append_FileCutOrRemovedByAnother_WritesAllOfItAgain()
    {
        await using var disk = await SmallDisk.MountAsync();
        using var folder = Folder(disk);
        var spool = Open(folder);
        spool.TryAppend([Report(1)], new VmmWatermark(Vmm, 1));
        File.Delete(Path.Combine(folder.Spool, "reports"));
        spool.TryAppend([Report(2)], new VmmWatermark(Vmm, 2));
        Assert.Equal([1L, 2], Open(folder).Peek(10).Select(report => report.Frame));

        using (var file = new FileStream(Path.Combine(folder.Spool, "reports"), FileMode.Open))
        {
            file.SetLength(10);
        }

        spool.TryAppend([Report(3)], new VmmWatermark(Vmm, 3));
        Assert.Equal([1L, 2, 3], Open(folder).Peek(10).Select(report => report.Frame));
    }

    [Theory]
    [InlineData("full")]
    [InlineData("read-only")]
    [InlineData("bound")]
    [Trait("Invariant", "I6")]
    [Trait("Invariant", "I8")]
    public async Task Agent_WhoseSpoolTakesNothing_EnforcesOnHoldsBackAndStoresEachHitOnceAfterwards(string cause)
    {
        Requires.Userfaultfd();
        await using var disk = await SmallDisk.MountAsync();
        using var vmm = new TestVmm();
        using var second = new TestVmm(vm: "vm-2");
        using var logs = new CapturingLogs();
        await using (var agent = await StartAsync(disk, logs, TestAgent.Vm(vmm, 1, new PageKey(5, 12)), TestAgent.Vm(second, 1, new PageKey(5, 12))))
        {
            using var channel = await agent.AttachAsync(vmm);
            using var other = await agent.AttachAsync(second);
            await BreakAsync(disk, agent, cause);
            var before = agent.Spool.Count;

            channel.SendEvent(Hit(1));
            other.SendEvent(Hit(1));
            var held = agent.Services.GetRequiredService<HeldBack>();
            await TestAgent.UntilAsync(() => held.Vms == 2);

            // Enforcement goes on: a marker that is lost now is put back.
            vmm.Memory.Advise(5 * TestVmm.PageBytes, TestVmm.PageBytes, Linux.Memory.MemoryAdvice.DontNeed);
            await agent.LookAsync("vm-1");
            Assert.True(vmm.HasMarker(5));
            Assert.Equal(Errno.EFAULT, vmm.Read(5).Error);
            Assert.Equal(Contracts.Vms.EnforcementStates.Armed, agent.Table.Find("vm-1")!.Status!.State);
            Assert.Equal(before, agent.Spool.Count);

            await MendAsync(disk, agent, cause);
            Assert.Equal((AgentLine.Acknowledged, 1L), Of(await channel.ReceiveAsync()));
            Assert.Equal((AgentLine.Acknowledged, 1L), Of(await other.ReceiveAsync()));
            await TestAgent.UntilAsync(() => held.Vms == 0);
            Assert.Equal(["vm-1", "vm-2"], agent.Spool.Peek(10_000).Where(report => report.Kind == AgentReport.Hit).Select(report => report.Vm).Order());
        }

        Assert.Equal([(1501, 1), (2231, 1)], logs.Ids.Where(id => id is 1501 or 2231).CountBy(id => id).Select(pair => (pair.Key, pair.Value)).Order());
    }

    /// <summary>A VMM that reconnects while the spool is stuck: what waits for its old connection must not take the new one's place.</summary>
    [Fact]
    public async Task Agent_WhoseSpoolTakesNothing_LetsAVmmReconnectAsOftenAsItLikes()
    {
        Requires.Userfaultfd();
        await using var disk = await SmallDisk.MountAsync();
        using var vmm = new TestVmm();
        using var logs = new CapturingLogs();
        await using var agent = await StartAsync(disk, logs, TestAgent.Vm(vmm, 1));
        await BreakAsync(disk, agent, "bound");
        for (var connection = 0; connection < 10; connection++)
        {
            using var channel = await agent.AttachAsync(vmm);
            channel.SendEvent(Hit(1));
            var held = agent.Services.GetRequiredService<HeldBack>();
            await TestAgent.UntilAsync(() => held.Vms == 1);
            channel.Dispose();
            await TestAgent.UntilAsync(() => held.Vms == 0);
        }
    }

    [Theory]
    [InlineData("full")]
    [InlineData("read-only")]
    [Trait("Invariant", "I6")]
    public async Task Start_OnAFullOrReadOnlyDisk_TakesOverAndArmsAgain(string cause)
    {
        Requires.Userfaultfd();
        await using var disk = await SmallDisk.MountAsync();
        using var vmm = new TestVmm();
        using var logs = new CapturingLogs();
        await using (var first = await StartAsync(disk, logs, TestAgent.Vm(vmm, 1, new PageKey(5, 12))))
        {
            using var channel = await first.AttachAsync(vmm);
            await BreakAsync(disk, first, cause);
        }

        vmm.Memory.Advise(5 * TestVmm.PageBytes, TestVmm.PageBytes, Linux.Memory.MemoryAdvice.DontNeed);
        await using var again = await StartAsync(disk, logs);

        await TestAgent.UntilAsync(() => vmm.HasMarker(5));
        Assert.NotNull(again.Table.Find("vm-1")!.Attachment);
        await disk.RemountAsync(readOnly: false);
    }

    /// <summary>Not even what is on it already can be made sure of: no fsync succeeds any more.</summary>
    [Fact]
    [Trait("Invariant", "I6")]
    public async Task Start_OnADiskThatFailed_TakesOverAndArmsAgain()
    {
        Requires.Userfaultfd();
        await using var disk = await FailingDisk.MountAsync();
        using var vmm = new TestVmm();
        await using (var first = await TestAgent.StartAsync(disk.Root, TestAgent.Vm(vmm, 1, new PageKey(5, 12))))
        {
            using var channel = await first.AttachAsync(vmm);
            disk.Fail();
            Assert.Throws<IOException>(() => DurableFile.SyncFolder(disk.Root));
            await first.LookAsync("vm-1");
            Assert.True(vmm.HasMarker(5));
        }

        vmm.Memory.Advise(5 * TestVmm.PageBytes, TestVmm.PageBytes, Linux.Memory.MemoryAdvice.DontNeed);
        await using (var again = await TestAgent.StartAsync(disk.Root))
        {
            await TestAgent.UntilAsync(() => vmm.HasMarker(5));
            Assert.NotNull(again.Table.Find("vm-1")!.Attachment);
        }
    }

    private static Task<TestAgent> StartAsync(SmallDisk disk, CapturingLogs logs, params DesiredVm[] desired) => TestAgent.StartAsync(
        disk.Root, new Dictionary<string, string?> { ["Agent:SpoolBytes"] = "65536" }, services => services.AddSingleton<ILoggerFactory>(logs), desired);

    private static async Task BreakAsync(SmallDisk disk, TestAgent agent, string cause)
    {
        switch (cause)
        {
            case "full":
                disk.Fill();
                FillSpool(agent, one: true);
                break;
            case "read-only":
                await disk.RemountAsync(readOnly: true);
                break;
            default:
                FillSpool(agent, one: false);
                break;
        }
    }

    // To its bound, or until the disk has no room for one more.
    private static void FillSpool(TestAgent agent, bool one)
    {
        while (Try(() => agent.Spool.TryAppend([.. Enumerable.Repeat(Report(7), one ? 1 : 20)])))
        {
        }
    }

    private static async Task MendAsync(SmallDisk disk, TestAgent agent, string cause)
    {
        if (cause == "bound")
        {
            agent.Spool.Acknowledge(agent.Spool.Count / 2);
        }
        else
        {
            disk.Empty();
            await disk.RemountAsync(readOnly: false);
        }
    }

    private static bool Try(Func<bool> append)
    {
        try
        {
            return append();
        }
        catch (IOException)
        {
            return false;
        }
    }

    private static StateFolder Folder(SmallDisk disk) => new(Options(disk));

    private static ReportSpool Open(StateFolder folder) =>
        new(folder, Microsoft.Extensions.Options.Options.Create(new AgentOptions { StateFolder = folder.Root }), NullLogger<ReportSpool>.Instance);

    private static Microsoft.Extensions.Options.IOptions<AgentOptions> Options(SmallDisk disk) =>
        Microsoft.Extensions.Options.Options.Create(new AgentOptions { StateFolder = disk.Root });

    private static AgentReport Report(long frame) =>
        new(0, AgentReport.Poison, "vm-1", 1, frame, 12, "srar", "vmm", null, DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch, 1, null, null, null, null);

    private static VmmEvent Hit(long sequence) =>
        new(VmmEvent.MceInjected, sequence, HexAddress.Format(FrameMath.AddressOf(5)), null, null, "read", 0, 1, DateTimeOffset.UnixEpoch);

    private static (string?, long) Of(AgentLine? line) => (line?.Type, line?.Sequence ?? -1);
}
