using System.Globalization;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Attach.Qemu;
using Fleet.HostAgent.Enforce;
using Fleet.Linux;
using Fleet.Linux.Processes;
using Fleet.Linux.Ptrace;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>The agent against unmodified QEMU (TCG): nothing in QEMU knows of it.</summary>
public sealed class QemuTests : IDisposable
{
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");
    private readonly DirectoryInfo _sockets = Directory.CreateTempSubdirectory("fq-");

    public QemuTests()
    {
        Requires.Qemu();
        File.SetUnixFileMode(_sockets.FullName, (UnixFileMode)0x1ff);
    }

    [Theory]
    [Trait("Invariant", "I1")]
    [InlineData(QemuProcess.Memfd, false, false)]
    [InlineData(QemuProcess.Memfd, true, true)]
    [InlineData(QemuProcess.Anonymous, false, false)]
    [InlineData(QemuProcess.Anonymous, true, true)]
    public async Task Adopt_PoisonedPage_MonitorNeverReadsItsDataAndNeighboursAreIntact(string backend, bool sandbox, bool user)
    {
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName, backend, sandbox: sandbox, user: user);
        await using var agent = await StartAsync(qemu.Vm(1));
        await AttachedAsync(agent);
        for (var frame = 299; frame <= 301; frame++)
        {
            qemu.Fill(QemuProcess.Address(agent, frame), 0xa5);
        }

        // The control: without protection the same command reads the data.
        Assert.EndsWith("0xa5", await qemu.MonitorAsync("xp /1xb 0x12c064"), StringComparison.Ordinal);

        await agent.AdoptAndWaitAsync(qemu.Vm(2, new PageKey(300, 12)));

        Assert.Equal(Errno.EFAULT, qemu.Read(QemuProcess.Address(agent, 300)).Error);
        Assert.EndsWith("0xa5", await qemu.MonitorAsync("xp /1xb 0x12bfff"), StringComparison.Ordinal);
        Assert.EndsWith("0xa5", await qemu.MonitorAsync("xp /1xb 0x12d000"), StringComparison.Ordinal);
        Assert.StartsWith("VM status: paused", await qemu.MonitorAsync("info status"), StringComparison.Ordinal);

        // QEMU's main thread has no handler for a poisoned page of its own: the access ends the process.
        Assert.Null(await qemu.MonitorAsync("xp /1xb 0x12c064"));
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")!.Attachment is null);
    }

    [Theory]
    [Trait("Invariant", "I1")]
    [InlineData(QemuProcess.Memfd)]
    [InlineData(QemuProcess.Anonymous)]
    public async Task Adopt_PoisonedPage_MonitorNeverSavesItsData(string backend)
    {
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName, backend);
        await using var agent = await StartAsync(qemu.Vm(1));
        await AttachedAsync(agent);
        qemu.Fill(QemuProcess.Address(agent, 300), 0xa5);
        var saved = Path.Combine(_sockets.FullName, "saved");
        Assert.Equal(string.Empty, await qemu.MonitorAsync($"pmemsave 0x12b000 0x3000 \"{saved}\""));
        Assert.Contains((byte)0xa5, File.ReadAllBytes(saved));

        await agent.AdoptAndWaitAsync(qemu.Vm(2, new PageKey(300, 12)));

        Assert.Null(await qemu.MonitorAsync($"pmemsave 0x12b000 0x3000 \"{saved}\""));
        Assert.DoesNotContain((byte)0xa5, File.ReadAllBytes(saved));
        Assert.True(new FileInfo(saved).Length <= QemuProcess.PageBytes, "nothing from the page on was saved");
    }

    [Theory]
    [InlineData("q35", "4G", "0x0:0x80000000,0x100000000:0x80000000", 0x100123)]
    [InlineData("pc", "4G", "0x0:0xc0000000,0x100000000:0x40000000", 0xbfff0)]
    [InlineData("pc", "64M", "0x0:0x4000000", 300)]
    [InlineData("microvm", "64M", "0x0:0x4000000", 0x3fff)]
    public async Task Attach_MachinesWithOtherLayouts_FindsEachFrame(string machine, string size, string layout, long frame)
    {
        var memory = layout.Split(',').Select(region => region.Split(':'))
            .Select(parts => new MemoryRegion(parts[0], long.Parse(parts[1].AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture), QemuProcess.PageBytes)).ToList();
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName, QemuProcess.Anonymous, machine, size, memory: memory);
        await using var agent = await StartAsync(qemu.Vm(1));
        await AttachedAsync(agent);
        qemu.Fill(QemuProcess.Address(agent, frame), 0x5a);
        Assert.EndsWith("0x5a", await qemu.MonitorAsync($"xp /1xb 0x{frame << 12:x}"), StringComparison.Ordinal);

        await agent.AdoptAndWaitAsync(qemu.Vm(2, new PageKey(frame, 12)));

        Assert.Null(await qemu.MonitorAsync($"xp /1xb 0x{frame << 12:x}"));
    }

    [Theory]
    [InlineData("0x0:0x2000000")]
    [InlineData("0x0:0x2000000,0x2000000:0x2000000")]
    [InlineData("0x1000000:0x4000000")]
    public async Task Attach_OtherMemoryThanTheControlPlaneKnows_IsRefusedAndTheProcessUntouched(string layout)
    {
        var memory = layout.Split(',').Select(region => region.Split(':'))
            .Select(parts => new MemoryRegion(parts[0], long.Parse(parts[1].AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture), QemuProcess.PageBytes)).ToList();
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName, memory: memory);
        await using var agent = await StartAsync(qemu.Vm(1));

        await RefusedAsync(agent, "layout-mismatch");

        Assert.Empty(qemu.Userfaultfds);
    }

    [Theory]
    [Trait("Invariant", "I6")]
    [InlineData(QemuProcess.Memfd, false)]
    [InlineData(QemuProcess.Anonymous, false)]
    [InlineData(QemuProcess.Memfd, true)]
    [InlineData(QemuProcess.Anonymous, true)]
    public async Task Restart_AgentGoneAndBack_TakesOverWithTheSameUserfaultfd(string backend, bool journalLost)
    {
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName, backend);
        ulong poisoned;
        await using (var first = await StartAsync(qemu.Vm(1, new PageKey(300, 12))))
        {
            await ArmedAsync(first, 1);
            poisoned = QemuProcess.Address(first, 300);
        }

        var userfaultfd = Assert.Single(qemu.Userfaultfds);
        Assert.Equal(Errno.EFAULT, qemu.Read(poisoned).Error);
        Assert.StartsWith("VM status: paused", await qemu.MonitorAsync("info status"), StringComparison.Ordinal);
        if (journalLost)
        {
            File.Delete(Path.Combine(_root.FullName, "attached", "vm-1.json"));
        }

        await using var second = await StartAsync(qemu.Vm(1, new PageKey(300, 12)));
        await ArmedAsync(second, 1);
        await second.AdoptAndWaitAsync(qemu.Vm(2, new PageKey(300, 12), new PageKey(302, 12)));

        Assert.Equal(userfaultfd, Assert.Single(qemu.Userfaultfds));
        Assert.Equal(Errno.EFAULT, qemu.Read(poisoned).Error);
        Assert.Equal(Errno.EFAULT, qemu.Read(poisoned + (2 * QemuProcess.PageBytes)).Error);
        Assert.Equal(Errno.None, qemu.Read(poisoned + QemuProcess.PageBytes).Error);
    }

    /// <summary>The agent was killed after the call was injected and before its handshake: the descriptor is taken, not a second one made.</summary>
    [Fact]
    [Trait("Invariant", "I6")]
    public async Task Attach_UserfaultfdOfAnAgentThatDiedAtOnce_IsFoundAndUsed()
    {
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName);
        var made = (int)RemoteCall.Userfaultfd(ProcessIdentity.Of(qemu.Pid)!, userModeOnly: false).Value;

        await using var agent = await StartAsync(qemu.Vm(1, new PageKey(300, 12)));
        await ArmedAsync(agent, 1);

        Assert.Equal(made, Assert.Single(qemu.Userfaultfds));
        Assert.Equal(made, agent.Table.Find("vm-1")!.Attachment!.UserfaultfdNumber);
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task Remove_VmFromDesiredState_LeavesQemuRunningAndItsPagesPoisoned()
    {
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName);
        await using var agent = await StartAsync(qemu.Vm(1, new PageKey(300, 12)));
        await ArmedAsync(agent, 1);
        var poisoned = QemuProcess.Address(agent, 300);

        await agent.Desired.ReplaceAsync([], TestContext.Current.CancellationToken);

        // The agent lets go of the QMP socket: another client is greeted there.
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")!.Desired is null);
        (await QmpClient.ConnectAsync(qemu.AgentSocket, TimeProvider.System, TestContext.Current.CancellationToken)).Dispose();
        Assert.StartsWith("VM status: paused", await qemu.MonitorAsync("info status"), StringComparison.Ordinal);
        Assert.Equal(Errno.EFAULT, qemu.Read(poisoned).Error);
    }

    [Theory]
    [InlineData(QemuProcess.Memfd)]
    [InlineData(QemuProcess.Anonymous)]
    public async Task Clear_Page_IsOrdinaryZeroedMemoryAgain(string backend)
    {
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName, backend);
        await using var agent = await StartAsync(qemu.Vm(1, new PageKey(300, 12), new PageKey(301, 12)));
        await ArmedAsync(agent, 1);

        await agent.AdoptAndWaitAsync(qemu.Vm(2, new PageKey(301, 12)));

        Assert.EndsWith("0x00", await qemu.MonitorAsync("xp /1xb 0x12c064"), StringComparison.Ordinal);
        Assert.Equal(Errno.EFAULT, qemu.Read(QemuProcess.Address(agent, 301)).Error);
    }

    [Fact]
    public async Task Attach_AnotherClientHoldsTheQmpSocket_SaysBusyAndAttachesWhenItIsFree()
    {
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName);
        using var holder = await QmpClient.ConnectAsync(qemu.AgentSocket, TimeProvider.System, TestContext.Current.CancellationToken);
        await using var agent = await StartAsync(qemu.Vm(1, new PageKey(300, 12)));

        await RefusedAsync(agent, "qmp-busy");
        Assert.Empty(qemu.Userfaultfds);
        holder.Dispose();

        await ArmedAsync(agent, 1);
    }

    [Fact]
    public async Task Attach_QemuIsTraced_SaysSoAndAttachesWhenItIsFree()
    {
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName);
        using var debugger = await CHelper.StartAsync(Traces, qemu.Pid.ToString(CultureInfo.InvariantCulture));
        Assert.Equal("traced", debugger.Line);
        await using var agent = await StartAsync(qemu.Vm(1, new PageKey(300, 12)));

        await RefusedAsync(agent, "vmm-traced");
        Assert.Empty(qemu.Userfaultfds);
        await debugger.FinishAsync();

        await ArmedAsync(agent, 1);
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Attach_SocketOutsideOfTheAllowedPaths_IsNotOpened()
    {
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName);
        await using var agent = await TestAgent.StartAsync(_root.FullName, "marker", [("Agent:AllowedPaths", _root.FullName)], [qemu.Vm(1)]);

        await RefusedAsync(agent, "path-not-allowed");

        Assert.Empty(qemu.Userfaultfds);
    }

    [Fact]
    public async Task QemuEnds_IsDroppedAndAnotherAtTheSameSocketIsAttached()
    {
        var qemu = await QemuProcess.StartAsync(_sockets.FullName);
        await using var agent = await StartAsync(qemu.Vm(1, new PageKey(300, 12)));
        await ArmedAsync(agent, 1);
        qemu.Kill();
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")!.Attachment is null);
        Assert.Empty(Directory.EnumerateFiles(Path.Combine(_root.FullName, "attached")));

        using var next = await QemuProcess.StartAsync(_sockets.FullName);
        await agent.Desired.AdoptAsync(next.Vm(2, new PageKey(300, 12)), TestContext.Current.CancellationToken);
        await ArmedAsync(agent, 2);

        Assert.Equal(next.Pid, agent.Table.Find("vm-1")!.Attachment!.Vmm.Pid);
        Assert.Equal(Errno.EFAULT, next.Read(QemuProcess.Address(agent, 300)).Error);
        qemu.Dispose();
    }

    /// <summary>The userfaultfd of a QEMU that is not root fails the kernel's accesses, KVM's among them: healthy pages must not be registered with it.</summary>
    [Theory]
    [InlineData(false, EnforcementStates.Armed)]
    [InlineData(true, EnforcementStates.Failed)]
    public async Task Adopt_MoreRangesThanMappings_NeverRegistersHealthyPagesOfAQemuThatIsNotRoot(bool user, string state)
    {
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName, QemuProcess.Anonymous, user: user);
        await using var agent = await TestAgent.StartAsync(
            _root.FullName, "marker", [("Agent:AllowedPaths", _sockets.FullName), ("Agent:MapCountLimit", "8")], [qemu.Vm(1, new PageKey(300, 12))]);
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Status?.State == state);

        Assert.Equal(!user, agent.Table.Find("vm-1")!.Attachment!.WholeRegions);
        Assert.Equal(user ? "mapping-limit: ENOMEM" : null, agent.Table.Find("vm-1")!.Status!.Reason);
    }

    /// <summary>QEMU has no part in the barrier: nobody could vouch that its guest stands still.</summary>
    [Fact]
    public async Task Migration_OfAQemu_IsTheObstacleThatItHasNoBarrier()
    {
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName);
        var migrating = qemu.Vm(1) with { Migration = new DesiredMigration("m-1", "preparing", "host-a", "host-b", new VmAttach(AttachKinds.Qemu, QmpSocket: "/x"), false, null) };
        await using var agent = await StartAsync(migrating);
        await AttachedAsync(agent);
        await agent.LookAsync("vm-1");

        Assert.Equal(("m-1", "vmm-without-barrier"), Assert.Single(agent.Outbox.Take().Obstacles!) is var told ? (told.Migration, told.Code) : default);
    }

    /// <summary>
    /// At a reset QEMU maps pages anew that had failed, so that marker and registration are gone. TCG has no failed pages: the test takes the marker
    /// away as the new mapping would.
    /// </summary>
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Reset_MarkerIsGoneWithTheOldMapping_IsArmedAgainAtOnce()
    {
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName, QemuProcess.Anonymous);
        await using var agent = await StartAsync(qemu.Vm(1, new PageKey(300, 12)));
        await ArmedAsync(agent, 1);
        await agent.LookAsync("vm-1");
        var poisoned = QemuProcess.Address(agent, 300);
        RemoteCall.DontNeed(ProcessIdentity.Of(qemu.Pid)!, (poisoned, (ulong)QemuProcess.PageBytes));
        Assert.False(qemu.HasMarker(poisoned));

        Assert.Equal(string.Empty, await qemu.MonitorAsync("system_reset"));

        await TestAgent.UntilAsync(() => qemu.HasMarker(poisoned));
        Assert.Equal(Errno.EFAULT, qemu.Read(poisoned).Error);
    }

    public void Dispose()
    {
        _root.Delete(recursive: true);
        _sockets.Delete(recursive: true);
    }

    // As a debugger does.
    private const string Traces = """
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/ptrace.h>
        int main(int argc, char **argv) {
          (void)argc;
          if (ptrace(PTRACE_SEIZE, atoi(argv[1]), 0, 0)) { perror("PTRACE_SEIZE"); return 1; }
          puts("traced"); fflush(stdout);
          return getchar() == EOF ? 0 : 1;
        }
        """;

    private Task<TestAgent> StartAsync(DesiredVm vm) =>
        TestAgent.StartAsync(_root.FullName, "marker", [("Agent:AllowedPaths", _sockets.FullName)], [vm]);

    private static Task AttachedAsync(TestAgent agent) => TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Attachment is not null);

    private static Task ArmedAsync(TestAgent agent, long generation) => TestAgent.UntilAsync(() =>
        agent.Table.Find("vm-1")?.Status is { State: EnforcementStates.Armed } status && status.ArmedGeneration == generation);

    private static async Task RefusedAsync(TestAgent agent, string code)
    {
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Status?.Reason == code);
        Assert.Null(agent.Table.Find("vm-1")!.Attachment);
    }
}
