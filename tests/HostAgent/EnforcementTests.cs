using Fleet.Contracts;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Reconcile;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>The agent against the real kernel, with memory of this process as the guest's.</summary>
public sealed class EnforcementTests : IDisposable
{
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");
    private readonly TestVmm _vmm;

    public EnforcementTests()
    {
        Requires.Userfaultfd();
        _vmm = new TestVmm();
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Adopt_PoisonedPage_NeverReturnsDataAndNeighboursAreIntact()
    {
        for (var frame = 99; frame <= 101; frame++)
        {
            _vmm.Fill(frame, (byte)frame);
        }

        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1));
        using var channel = await agent.AttachAsync(_vmm);
        Assert.Equal((Errno.None, (byte)100), _vmm.Read(100));

        await agent.AdoptAndWaitAsync(TestAgent.Vm(_vmm, 2, new PageKey(100, 12)));

        Assert.Equal(Errno.EFAULT, _vmm.Read(100).Error);
        Assert.Equal(Errno.EFAULT, _vmm.Write(100));
        Assert.Equal((Errno.None, (byte)99), _vmm.Read(99));
        Assert.Equal((Errno.None, (byte)101), _vmm.Read(101));
        Assert.Equal(PoisonDigest.Compute("vm-1", 1, [new PageKey(100, 12)]), agent.Table.Find("vm-1")!.Status!.Digest);
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Attach_PagesKnownBefore_AreArmedBeforeTheVmmIsTold()
    {
        _vmm.Fill(3, 7);
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 5, new PageKey(3, 12), new PageKey(512, 21)));

        using var channel = await agent.AttachAsync(_vmm);

        Assert.All(new long[] { 3, 512, 700, 1023 }, frame => Assert.Equal(Errno.EFAULT, _vmm.Read(frame).Error));
        Assert.All(new long[] { 2, 4, 511, 1024 }, frame => Assert.Equal((Errno.None, (byte)0), _vmm.Read(frame)));
    }

    [Fact]
    public async Task Clear_Page_IsOrdinaryZeroedMemoryAgainAndOthersStayArmed()
    {
        _vmm.Fill(10, 1);
        _vmm.Fill(11, 2);
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1, new PageKey(10, 12), new PageKey(11, 12)));
        using var channel = await agent.AttachAsync(_vmm);

        await agent.AdoptAndWaitAsync(TestAgent.Vm(_vmm, 2, new PageKey(11, 12)));

        Assert.Equal((Errno.None, (byte)0), _vmm.Read(10));
        Assert.Equal(Errno.None, _vmm.Write(10));
        Assert.Equal(Errno.EFAULT, _vmm.Read(11).Error);
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task Remove_VmFromDesiredState_DisarmsNothing()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1, new PageKey(10, 12)));
        using var channel = await agent.AttachAsync(_vmm);

        await agent.Desired.ReplaceAsync([], TestContext.Current.CancellationToken);
        await TestAgent.UntilAsync(() => !File.Exists(agent.Socket("vm-1")));

        Assert.Null(agent.Table.Find("vm-1")!.Desired);
        Assert.Equal(Errno.EFAULT, _vmm.Read(10).Error);
    }

    /// <summary>A view that was asked for before the last page was added comes after the VM was removed.</summary>
    [Fact]
    [Trait("Invariant", "I3")]
    public async Task Adopt_OlderViewAfterTheRemoval_IsOlderAndDisarmsNothing()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 9, new PageKey(10, 12)));
        using var channel = await agent.AttachAsync(_vmm);
        await agent.Desired.RemoveAsync("vm-1", TestContext.Current.CancellationToken);

        Assert.Equal(DesiredVerdict.Older, await agent.Desired.AdoptAsync(TestAgent.Vm(_vmm, 8), TestContext.Current.CancellationToken));
        await agent.LookAsync("vm-1");
        Assert.True(_vmm.HasMarker(10));

        // It comes back: moved here again, or deleted and made anew.
        await agent.AdoptAndWaitAsync(TestAgent.Vm(_vmm, 10, new PageKey(10, 12), new PageKey(12, 12)) with { PlacementEpoch = 10 });
        Assert.True(_vmm.HasMarker(12));
    }

    [Fact]
    public async Task Adopt_OtherMemoryInstance_ChangesNothingInTheOldVmm()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1, new PageKey(10, 12)));
        using var channel = await agent.AttachAsync(_vmm);
        var reset = TestAgent.Vm(_vmm, 9) with { MemoryInstance = 9, Digest = PoisonDigest.Compute("vm-1", 9, []) };

        await agent.Desired.AdoptAsync(reset, TestContext.Current.CancellationToken);
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")!.Status!.Reason == "vmm-of-another-memory-instance");

        Assert.Equal(EnforcementStates.Pending, agent.Table.Find("vm-1")!.Status!.State);
        Assert.Equal(Errno.EFAULT, _vmm.Read(10).Error);
    }

    /// <summary>The VM was deleted and made anew (or reset) while its VMM lives on: that process still holds the old RAM.</summary>
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Handoff_AgainAfterTheMemoryInstanceChanged_NeverDisarmsTheOldRam()
    {
        await using (var first = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1, new PageKey(10, 12))))
        {
            (await first.AttachAsync(_vmm)).Dispose();
        }

        var reset = TestAgent.Vm(_vmm, 9) with { MemoryInstance = 9, Digest = PoisonDigest.Compute("vm-1", 9, []) };
        await using var second = await TestAgent.StartAsync(_root.FullName, reset);
        using var channel = await second.ConnectAsync("vm-1");
        channel.SendHandoff(_vmm.Message(), _vmm.Userfaultfd.Number, _vmm.File.Descriptor.Number);
        await TestAgent.UntilAsync(() => second.Table.Find("vm-1")?.Status?.Reason == "vmm-of-another-memory-instance");

        Assert.Equal(1, second.Table.Find("vm-1")!.Attachment!.MemoryInstance);
        Assert.Equal(Errno.EFAULT, _vmm.Read(10).Error);
    }

    [Fact]
    [Trait("Invariant", "I6")]
    public async Task Restart_AgentGoneAndBack_PagesStayPoisonedAndAreTakenOverWithoutTheVmm()
    {
        _vmm.Fill(20, 9);
        await using (var first = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1, new PageKey(20, 12))))
        {
            (await first.AttachAsync(_vmm)).Dispose();
        }

        Assert.Equal(Errno.EFAULT, _vmm.Read(20).Error);

        // No handoff this time: the new agent finds the process and its descriptors by itself.
        await using var second = await TestAgent.StartAsync(_root.FullName);
        await TestAgent.UntilAsync(() => second.Table.Find("vm-1")?.Status?.State == EnforcementStates.Armed);
        await second.AdoptAndWaitAsync(TestAgent.Vm(_vmm, 2, new PageKey(20, 12), new PageKey(21, 12)));

        Assert.Equal(Errno.EFAULT, _vmm.Read(20).Error);
        Assert.Equal(Errno.EFAULT, _vmm.Read(21).Error);
    }

    [Fact]
    [Trait("Invariant", "I6")]
    public async Task Restart_PageClearedMeanwhile_IsDisarmedFromTheJournal()
    {
        await using (var first = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1, new PageKey(20, 12))))
        {
            (await first.AttachAsync(_vmm)).Dispose();
        }

        await using var second = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 2));
        await TestAgent.UntilAsync(() => second.Table.Find("vm-1")?.Status?.State == EnforcementStates.Armed);

        Assert.Equal((Errno.None, (byte)0), _vmm.Read(20));
    }

    [Fact]
    public async Task Restart_RecordedPidIsAnotherProcessNow_IsNotTouched()
    {
        await using (var first = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1, new PageKey(20, 12))))
        {
            (await first.AttachAsync(_vmm)).Dispose();
        }

        var record = Path.Combine(_root.FullName, "attached", "vm-1.json");
        var start = ProcessIdentity.Of(Environment.ProcessId)!.StartTime;
        File.WriteAllText(record, File.ReadAllText(record).Replace($"{start}", $"{start - 1}", StringComparison.Ordinal));

        await using var second = await TestAgent.StartAsync(_root.FullName);
        await TestAgent.UntilAsync(() => second.Table.Find("vm-1")?.Status is not null);

        Assert.Equal("not-attached", second.Table.Find("vm-1")!.Status!.Reason);
        Assert.Null(second.Table.Find("vm-1")!.Attachment);
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task MarkerLost_ByDontNeed_IsArmedAgainAndNeverReadsData()
    {
        _vmm.Fill(30, 5);
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1, new PageKey(30, 12)));
        using var channel = await agent.AttachAsync(_vmm);
        _vmm.Memory.Advise(30 * TestVmm.PageBytes, TestVmm.PageBytes, MemoryAdvice.DontNeed);
        Assert.False(_vmm.HasMarker(30));

        agent.Work.Add("vm-1");
        await TestAgent.UntilAsync(() => _vmm.HasMarker(30));

        Assert.Equal(Errno.EFAULT, _vmm.Read(30).Error);
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task MarkerLost_AndTouchedAtOnce_MeetsTheTrapAndNotData()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1, new PageKey(30, 12)));
        using var channel = await agent.AttachAsync(_vmm);
        _vmm.Memory.Advise(30 * TestVmm.PageBytes, TestVmm.PageBytes, MemoryAdvice.DontNeed);

        var read = await Task.Run(() => _vmm.Read(30), TestContext.Current.CancellationToken).WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken);

        Assert.Equal(Errno.EFAULT, read.Error);
    }

    /// <summary>Another mapping of the memfd (as vhost-user has) writes to the page all the time while it is armed.</summary>
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Arm_PageRefilledByAnotherMapping_ClaimsArmedOnlyWithTheMarkerThere()
    {
        using var other = MemoryMapping.MapShared(_vmm.File.Descriptor, 0, _vmm.Bytes);
        using var stop = new CancellationTokenSource();
        var writer = Task.Run(() =>
        {
            while (!stop.IsCancellationRequested)
            {
                ProcessMemory.Write(Environment.ProcessId, other.Address + (40 * TestVmm.PageBytes), [1, 2, 3, 4]);
            }
        }, TestContext.Current.CancellationToken);
        using var pidfd = Pidfd.Open(Environment.ProcessId);
        using var attachment = SelfAttachment(_vmm.Userfaultfd, pidfd);
        var frames = FrameSet.Of([new PageKey(40, 12)]);
        for (var round = 0; round < 50; round++)
        {
            var failures = Enforcer.Arm(attachment, frames);
            Assert.Equal(failures.Count == 0, _vmm.HasMarker(40));
            Assert.True(failures.Count > 0 || _vmm.Read(40).Error == Errno.EFAULT);
            Assert.Empty(Enforcer.Disarm(attachment, frames));
        }

        await stop.CancelAsync();
        await writer;
    }

    [Fact]
    public void Arm_RangeHeldByAnotherUserfaultfd_SaysBusy()
    {
        using var other = UserfaultfdHandle.Create();
        other.Handshake(UffdFeatures.MissingShmem);
        other.Register(_vmm.Address(50), TestVmm.PageBytes, UffdRegisterMode.Missing);
        using var pidfd = Pidfd.Open(Environment.ProcessId);
        using var attachment = SelfAttachment(_vmm.Userfaultfd, pidfd);

        var failure = Assert.Single(Enforcer.Arm(attachment, FrameSet.Of([new PageKey(50, 12), new PageKey(60, 12)])));

        Assert.Equal(("busy-userfaultfd", new FrameRange(50, 51)), (failure.Reason, failure.Range));
        Assert.True(_vmm.HasMarker(60));
    }

    [Fact]
    public void Arm_FrameOutsideMemory_IsAFailureAndNotAnArmedPage()
    {
        using var pidfd = Pidfd.Open(Environment.ProcessId);
        using var attachment = SelfAttachment(_vmm.Userfaultfd, pidfd);

        var failure = Assert.Single(Enforcer.Arm(attachment, FrameSet.Of([new PageKey(_vmm.Bytes >> 12, 12)])));

        Assert.Equal("frame-outside-memory", failure.Reason);
    }

    [Fact]
    public void FrameSets_TenThousandIsolatedPages_AreAllArmed()
    {
        using var vmm = new TestVmm(128 << 20);
        using var pidfd = Pidfd.Open(Environment.ProcessId);
        using var attachment = new Attachment("vm-1", 1, ProcessIdentity.Of(Environment.ProcessId)!, pidfd, vmm.Userfaultfd, vmm.Userfaultfd.Number, Layout(vmm));
        var frames = FrameSet.Of(Enumerable.Range(0, 10_000).Select(i => new PageKey(i * 3, 12)));

        Assert.Empty(Enforcer.Arm(attachment, frames));

        Assert.True(MarkerVerifier.FindUnmarked(attachment, frames).IsEmpty);
        Assert.Equal(Errno.EFAULT, vmm.Read(29_997).Error);
        Assert.Equal(Errno.None, vmm.Read(29_998).Error);
    }

    public void Dispose()
    {
        _vmm.Dispose();
        _root.Delete(recursive: true);
    }

    // The attachment borrows the test's own descriptors; disposing them twice is harmless.
    private Attachment SelfAttachment(UserfaultfdHandle userfaultfd, Pidfd pidfd) =>
        new("vm-1", 1, ProcessIdentity.Of(Environment.ProcessId)!, pidfd, userfaultfd, userfaultfd.Number, Layout(_vmm));

    private static GuestLayout Layout(TestVmm vmm) =>
        new([new GuestRegion(0, vmm.Bytes, vmm.Memory.Address, TestVmm.PageBytes, GuestBacking.OfFile(vmm.File, vmm.File.Descriptor.Number, 0))]);
}
