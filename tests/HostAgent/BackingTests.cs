using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;
using Fleet.Linux;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>The whole agent with guests whose memory is no memfd of 4 KiB pages: what is private is zapped by the VMM, what is huge is armed whole.</summary>
public sealed class BackingTests : IDisposable
{
    private const int HugeFrames = 512;

    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");

    public BackingTests() => Requires.Userfaultfd();

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Anonymous_PoisonedPage_IsZappedByTheVmmAndArmedAndClearedAgain()
    {
        using var vmm = new TestVmm(memory: MemoryClass.Anonymous);
        Fill(vmm, 99, 100, 101);
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 1, new PageKey(100, 12)));
        Assert.Equal((Errno.None, (byte)100), vmm.Read(100));
        using var channel = await agent.ConnectAsync("vm-1");
        var zaps = 0;
        channel.SendHandoff(vmm.Message(), vmm.Descriptors);
        var served = channel.ServeZapsAsync(line =>
        {
            zaps++;
            vmm.Zap(line);
            return null;
        });
        await ArmedAsync(agent, 1);

        Assert.Equal(1, zaps);
        Assert.Equal(Errno.EFAULT, vmm.Read(100).Error);
        Assert.Equal(Errno.EFAULT, vmm.Write(100));
        Assert.Equal((Errno.None, (byte)99), vmm.Read(99));
        Assert.Equal((Errno.None, (byte)101), vmm.Read(101));

        await agent.AdoptAndWaitAsync(TestAgent.Vm(vmm, 2));
        Assert.Equal((Errno.None, (byte)0), vmm.Read(100));
        Assert.Equal(Errno.None, vmm.Write(100));
        await agent.DisposeAsync();
        await served;
    }

    /// <summary>A VMM that cannot do the one may do the other; what it cannot do at all is said, and never called armed.</summary>
    [Theory]
    [InlineData(AgentLine.DontNeed, "armed", null)]
    [InlineData("both", "failed", "zap remap in the VMM: EINVAL")]
    [Trait("Invariant", "I1")]
    public async Task Anonymous_VmmThatRefusesAMethod_IsAskedForTheNext(string refused, string state, string? reason)
    {
        using var vmm = new TestVmm(memory: MemoryClass.Anonymous);
        Fill(vmm, 100);
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 1, new PageKey(100, 12)));
        using var channel = await agent.ConnectAsync("vm-1");
        channel.SendHandoff(vmm.Message(), vmm.Descriptors);
        var served = channel.ServeZapsAsync(line =>
        {
            if (refused == "both" || line.Method == refused)
            {
                return nameof(Errno.EINVAL);
            }

            vmm.Zap(line);
            return null;
        });

        await TestAgent.UntilAsync(() => StatusOf(agent) is { Reason: not "not-attached" });

        Assert.Equal((state, reason), (StatusOf(agent)!.State, StatusOf(agent)!.Reason));
        Assert.Equal(state == "armed", vmm.HasMarker(100));
        await agent.DisposeAsync();
        await served;
    }

    /// <summary>Other VMs wait with it, so it is asked once, and again only after it has answered.</summary>
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Anonymous_VmmThatDoesNotAnswer_IsNotCalledArmedUntilItDid()
    {
        using var vmm = new TestVmm(memory: MemoryClass.Anonymous);
        Fill(vmm, 100);
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 1, new PageKey(100, 12)));
        using var channel = await agent.ConnectAsync("vm-1");
        channel.SendHandoff(vmm.Message(), vmm.Descriptors);
        var unanswered = await channel.ReceiveAsync();
        Assert.Equal(AgentLine.Zap, unanswered?.Type);
        // A look that was asked for meanwhile follows at once, and has its own reason.
        await TestAgent.UntilAsync(() => StatusOf(agent)?.Reason is "zap in the VMM: ETIMEDOUT" or Enforcer.NoZapper);
        await agent.LookAsync("vm-1");
        Assert.Equal((EnforcementStates.Failed, Enforcer.NoZapper), (StatusOf(agent)!.State, StatusOf(agent)!.Reason));

        vmm.Zap(unanswered!);
        channel.SendZapped(new VmmZapped(VmmZapped.ZappedType, unanswered!.Sequence));
        var served = channel.ServeZapsAsync(line =>
        {
            vmm.Zap(line);
            return null;
        });
        await TestAgent.UntilAsync(() =>
        {
            agent.Work.Add("vm-1");
            return StatusOf(agent)?.State == EnforcementStates.Armed;
        });
        Assert.Equal(Errno.EFAULT, vmm.Read(100).Error);
        await agent.DisposeAsync();
        await served;
    }

    [Fact]
    [Trait("Invariant", "I6")]
    public async Task Anonymous_AgentBackBeforeTheVmm_KeepsWhatIsArmedAndWaitsForTheVmmToArmMore()
    {
        using var vmm = new TestVmm(memory: MemoryClass.Anonymous);
        Fill(vmm, 100, 101);
        await using (var first = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 1, new PageKey(100, 12))))
        {
            using var channel = await first.ConnectAsync("vm-1");
            var served = Serve(channel, vmm);
            await ArmedAsync(first, 1);
            await first.DisposeAsync();
            await served;
        }

        await using var second = await TestAgent.StartAsync(_root.FullName);
        await ArmedAsync(second, 1);
        Assert.Equal(Errno.EFAULT, vmm.Read(100).Error);
        await second.Desired.AdoptAsync(TestAgent.Vm(vmm, 2, new PageKey(100, 12), new PageKey(101, 12)), TestContext.Current.CancellationToken);
        await TestAgent.UntilAsync(() => StatusOf(second)?.Generation == 2);
        Assert.Equal(Enforcer.NoZapper, StatusOf(second)!.Reason);
        var exception = Assert.Single(StatusOf(second)!.Exceptions);
        Assert.Equal((101L, Enforcer.NoZapper), (exception.Frame, exception.Reason));

        using var again = await second.ConnectAsync("vm-1");
        var servedAgain = Serve(again, vmm);
        await ArmedAsync(second, 2);
        Assert.Equal(Errno.EFAULT, vmm.Read(101).Error);
        await second.DisposeAsync();
        await servedAgain;
    }

    [Theory]
    [InlineData(MemoryClass.Hugetlb)]
    [InlineData(MemoryClass.HugetlbPrivate)]
    [Trait("Invariant", "I1")]
    public async Task Huge_PoisonedFrame_ArmsItsWholePageAndSaysSo(MemoryClass memory)
    {
        using var pages = await HugePages.ReserveAsync(4);
        using var vmm = new TestVmm(8 << 20, memory: memory);
        Fill(vmm, 511, 700, 1_024);
        PageKey[] poisoned = [new(700, 12), new(701, 12)];
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 1, poisoned));
        using var channel = await agent.ConnectAsync("vm-1");
        var served = Serve(channel, vmm);
        await ArmedAsync(agent, 1);

        // Of the page all is lost, and of its neighbours nothing.
        Assert.All(new long[] { 512, 700, 1_023 }, frame => Assert.Equal(Errno.EFAULT, vmm.Read(frame).Error));
        Assert.Equal((Errno.None, (byte)255), vmm.Read(511));
        Assert.Equal((Errno.None, (byte)0), vmm.Read(1_024));
        var status = StatusOf(agent)!;
        Assert.Equal(PoisonDigest.Compute("vm-1", 1, poisoned), status.Digest);
        Assert.Equal(
            [new PageException(700, 12, EnforcementStates.Armed, 21, null), new PageException(701, 12, EnforcementStates.Armed, 21, null)],
            status.Exceptions);

        // As long as one frame of it is poisoned it stays so, and then it is a page again.
        await agent.AdoptAndWaitAsync(TestAgent.Vm(vmm, 2, new PageKey(701, 12)));
        Assert.Equal(Errno.EFAULT, vmm.Read(700).Error);
        await agent.AdoptAndWaitAsync(TestAgent.Vm(vmm, 3));
        Assert.Equal((Errno.None, (byte)0), vmm.Read(700));
        Assert.Equal(Errno.None, vmm.Write(701));
        await agent.DisposeAsync();
        await served;
    }

    /// <summary>A marker in huge pages does not survive what a balloon does (FACTS 3): the next look arms the page again.</summary>
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Huge_MarkerLostByAPunchedHole_IsFoundAndArmedAgainAcrossARestart()
    {
        using var pages = await HugePages.ReserveAsync(4);
        using var vmm = new TestVmm(8 << 20, memory: MemoryClass.Hugetlb);
        await using (var first = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 1, new PageKey(700, 12))))
        {
            (await first.AttachAsync(vmm)).Dispose();
        }

        Assert.True(vmm.HasMarker(700));
        vmm.File.PunchHole(2 << 20, 2 << 20);
        Assert.False(vmm.HasMarker(700));

        await using var second = await TestAgent.StartAsync(_root.FullName);
        await ArmedAsync(second, 1);
        Assert.True(vmm.HasMarker(700));
        Assert.Equal(Errno.EFAULT, vmm.Read(HugeFrames).Error);
    }

    /// <summary>The file of a guest's memory may have a name, as with memory-backend-file on /dev/shm.</summary>
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Tmpfs_File_IsEnforcedAsAMemfd()
    {
        const string Folder = "/dev/shm";
        Requires.Kernel(Directory.Exists(Folder) ? null : "no tmpfs on /dev/shm");
        var path = Path.Combine(Folder, $"fleet-test-{Environment.ProcessId}");
        await using var file = new FileStream(path, FileMode.Create, FileAccess.ReadWrite, FileShare.None, 1, FileOptions.DeleteOnClose);
        file.SetLength(1 << 20);
        using var memory = new Fleet.Linux.Memory.MemoryFile(new FileDescriptor(Duplicate(file)));
        using var backing = GuestBacking.OfFile(memory, memory.Descriptor.Number, 0);
        Assert.Equal(BackingKind.Tmpfs, backing.Kind);
        Assert.Equal(FileDescriptorInfo.Identity(memory.Descriptor), backing.Identity);

        using var mapping = Fleet.Linux.Memory.MemoryMapping.MapShared(memory.Descriptor, 0, 1 << 20);
        Assert.Contains(
            Fleet.Linux.Processes.ProcessMaps.Read(Environment.ProcessId), map => map.Start == mapping.Address && map.File == backing.Identity);
        using var userfaultfd = Fleet.Linux.Userfaultfd.UserfaultfdHandle.Create();
        userfaultfd.Handshake(backing.Features);
        using var pidfd = Fleet.Linux.Processes.Pidfd.Open(Environment.ProcessId);
        using var attachment = new Attachment(
            "vm-1", 1, Fleet.Linux.Processes.ProcessIdentity.Of(Environment.ProcessId)!, pidfd, userfaultfd, userfaultfd.Number,
            new GuestLayout([new GuestRegion(0, 1 << 20, mapping.Address, 4096, backing)]));

        Assert.Empty(Enforcer.Arm(attachment, FrameSet.Of([new PageKey(7, 12)])));

        Assert.Equal(Errno.EFAULT, Fleet.Linux.Memory.ProcessMemory.Read(Environment.ProcessId, mapping.Address + (7 * 4096), new byte[1]));
    }

    public void Dispose() => _root.Delete(recursive: true);

    private static int Duplicate(FileStream file)
    {
        using var self = Fleet.Linux.Processes.Pidfd.Open(Environment.ProcessId);
        using var copy = self.GetFd((int)file.SafeFileHandle.DangerousGetHandle());
        var number = copy.Number;
        copy.SetHandleAsInvalid();
        return number;
    }

    private static Task Serve(TestChannel channel, TestVmm vmm)
    {
        channel.SendHandoff(vmm.Message(), vmm.Descriptors);
        return channel.ServeZapsAsync(line =>
        {
            vmm.Zap(line);
            return null;
        });
    }

    private static void Fill(TestVmm vmm, params long[] frames)
    {
        foreach (var frame in frames)
        {
            vmm.Fill(frame, (byte)frame);
        }
    }

    private static VmStatus? StatusOf(TestAgent agent) => agent.Table.Find("vm-1")?.Status;

    private static Task ArmedAsync(TestAgent agent, long generation) =>
        TestAgent.UntilAsync(() => StatusOf(agent) is { State: EnforcementStates.Armed } status && status.ArmedGeneration == generation);
}
