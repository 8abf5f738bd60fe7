using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.ControlPlane;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>The handoff socket, with a peer that means well and with one that does not.</summary>
public sealed class HandoffTests : IDisposable
{
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");
    private readonly TestVmm _vmm;

    public HandoffTests()
    {
        Requires.Userfaultfd();
        _vmm = new TestVmm();
    }

    /// <summary>Name, change to a good message, and the code of the refusal.</summary>
    private static readonly Dictionary<string, (Func<HandoffMessage, HandoffMessage> Change, string Code)> Bad = new()
    {
        ["type"] = (message => message with { Type = "hello" }, "unsupported-version"),
        ["version"] = (message => message with { Version = 2 }, "unsupported-version"),
        ["vm"] = (message => message with { Vm = "vm-2" }, "wrong-vm"),
        ["pid"] = (message => message with { VmmPid = 1 }, "wrong-pid"),
        ["no regions"] = (message => message with { Regions = [] }, "bad-regions"),
        ["too many regions"] = (message => message with { Regions = [.. Enumerable.Repeat(message.Regions[0], 65)] }, "bad-regions"),
        ["overlap"] = (message => message with { Regions = [message.Regions[0], message.Regions[0]] }, "bad-regions"),
        ["wraps"] = (message => Region(message, region => region with { GuestPhysicalAddress = "0xfffffffffffff000" }), "bad-regions"),
        ["host wraps"] = (message => Region(message, region => region with { HostVirtualAddress = "0xfffffffffffff000" }), "bad-regions"),
        ["outside"] = (message => Region(message, region => region with { Bytes = 1L << 60 }), "bad-regions"),
        ["negative"] = (message => Region(message, region => region with { Bytes = -4096 }), "bad-regions"),
        ["offset wraps"] = (message => Region(message, region => region with { MemfdOffset = long.MaxValue - 4095 }), "bad-regions"),
        ["unaligned"] = (message => Region(message, region => region with { HostVirtualAddress = "0x1001" }), "bad-regions"),
        ["decimal address"] = (message => Region(message, region => region with { HostVirtualAddress = "4096" }), "bad-regions"),
        ["anonymous"] = (message => Region(message, region => region with { Memfd = null, MemfdNumber = null }), "unsupported-backing"),
        ["number without memfd"] = (message => Region(message, region => region with { Memfd = null }), "bad-regions"),
        ["offset without memfd"] = (message => Region(message, region => region with { Memfd = null, MemfdNumber = null, MemfdOffset = 4096 }), "bad-regions"),
        ["gigantic pages"] = (message => Region(message, region => region with { PageBytes = 1 << 30 }), "unsupported-backing"),
        ["other pages"] = (message => Region(message, region => region with { PageBytes = 8192 }), "unsupported-backing"),
        ["memfd index"] = (message => Region(message, region => region with { Memfd = 1 }), "no-descriptor"),
        ["negative memfd index"] = (message => Region(message, region => region with { Memfd = -1 }), "no-descriptor"),
        ["other layout"] = (message => Region(message, region => region with { Bytes = region.Bytes - 4096 }), "layout-mismatch"),
        ["other address"] = (message => Region(message, region => region with { HostVirtualAddress = "0x10000" }), "not-mapped"),
        ["other offset"] = (message => Region(message, region => region with { MemfdOffset = 4096 }), "not-mapped"),
        ["uffd number"] = (message => message with { Userfaultfd = message.Regions[0].MemfdNumber!.Value }, "wrong-descriptor"),
        ["closed uffd number"] = (message => message with { Userfaultfd = 19_999 }, "wrong-descriptor"),
        ["memfd number"] = (message => Region(message, region => region with { MemfdNumber = 0 }), "wrong-descriptor"),
    };

    public static TheoryData<string> BadNames => [.. Bad.Keys];

    [Theory]
    [MemberData(nameof(BadNames))]
    [Trait("Invariant", "I1")]
    public async Task Handoff_BadMessage_IsRefusedWithItsCode(string name)
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1));
        using var channel = await agent.ConnectAsync("vm-1");

        channel.SendHandoff(Bad[name].Change(_vmm.Message()), _vmm.Userfaultfd.Number, _vmm.File.Descriptor.Number);

        var line = await channel.ReceiveAsync();
        Assert.Equal((AgentLine.Rejected, Bad[name].Code), (line?.Type, line?.Code));
        Assert.Null(await channel.ReceiveAsync());
        Assert.Null(agent.Table.Find("vm-1")!.Attachment);
    }

    [Theory]
    [InlineData("not json")]
    [InlineData("[]")]
    [InlineData("null")]
    [InlineData("{}")]
    [InlineData("{\"type\":\"handoff\",\"version\":1,\"vm\":\"vm-1\",\"vmmPid\":\"1\"}")]
    [InlineData("{\"type\":\"handoff\",\"version\":1,\"vm\":\"vm-1\",\"regions\":[null]}")]
    public async Task Handoff_NotAMessage_IsRefused(string text)
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1));
        using var channel = await agent.ConnectAsync("vm-1");

        channel.SendRaw(System.Text.Encoding.UTF8.GetBytes(text + "\n"), _vmm.Userfaultfd.Number, _vmm.File.Descriptor.Number);

        Assert.Equal(AgentLine.Rejected, (await channel.ReceiveAsync())?.Type);
        Assert.Null(await channel.ReceiveAsync());
        Assert.Null(agent.Table.Find("vm-1")!.Attachment);
    }

    [Fact]
    public async Task Handoff_WithoutOrWithWrongDescriptors_IsRefused()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1));
        using var pipe = new EventSignalFile();
        int uffd = _vmm.Userfaultfd.Number, memfd = _vmm.File.Descriptor.Number;

        Assert.Equal("no-descriptor", await RefusalAsync(agent));
        Assert.Equal("no-descriptor", await RefusalAsync(agent, uffd));
        Assert.Equal("wrong-descriptor", await RefusalAsync(agent, memfd, uffd));
        Assert.Equal("wrong-descriptor", await RefusalAsync(agent, memfd, memfd));
        Assert.Equal("wrong-descriptor", await RefusalAsync(agent, uffd, pipe.Number));
        Assert.Equal("wrong-descriptor", await RefusalAsync(agent, uffd, memfd, memfd));
    }

    [Fact]
    public async Task Handoff_UserfaultfdWithoutTheFeatures_IsRefused()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1));
        using var poor = UserfaultfdHandle.Create();
        poor.Handshake(UffdFeatures.MissingShmem);
        using var channel = await agent.ConnectAsync("vm-1");

        channel.SendHandoff(_vmm.Message() with { Userfaultfd = poor.Number }, poor.Number, _vmm.File.Descriptor.Number);

        Assert.Equal("userfaultfd-features", (await channel.ReceiveAsync())?.Code);
    }

    [Fact]
    public async Task Handoff_BlockingUserfaultfd_IsRefused()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1));
        using var channel = await agent.ConnectAsync("vm-1");
        _vmm.Userfaultfd.SetNonBlocking(false);

        channel.SendHandoff(_vmm.Message(), _vmm.Descriptors);

        Assert.Equal("blocking-userfaultfd", (await channel.ReceiveAsync())?.Code);
        Assert.Null(agent.Table.Find("vm-1")!.Attachment);
    }

    [Fact]
    public async Task Handoff_HandshakeLeftToTheAgent_IsAccepted()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1, new PageKey(1, 12)));
        using var fresh = UserfaultfdHandle.Create();
        using var channel = await agent.ConnectAsync("vm-1");

        channel.SendHandoff(_vmm.Message() with { Userfaultfd = fresh.Number }, fresh.Number, _vmm.File.Descriptor.Number);

        Assert.Equal(AgentLine.Attached, (await channel.ReceiveAsync())?.Type);
        Assert.Equal(Errno.EFAULT, _vmm.Read(1).Error);
    }

    [Fact]
    public async Task Handoff_SplitIntoSingleBytes_IsAccepted()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1));
        using var channel = await agent.ConnectAsync("vm-1");
        var bytes = System.Text.Json.JsonSerializer.SerializeToUtf8Bytes(_vmm.Message(), HandoffJson.Default.HandoffMessage);

        channel.SendRaw(bytes.AsSpan(0, 1), _vmm.Userfaultfd.Number, _vmm.File.Descriptor.Number);
        for (var i = 1; i < bytes.Length; i++)
        {
            channel.SendRaw(bytes.AsSpan(i, 1));
        }

        channel.SendRaw("\n"u8);

        Assert.Equal(AgentLine.Attached, (await channel.ReceiveAsync())?.Type);
    }

    [Fact]
    public async Task Handoff_LineWithoutEnd_ClosesTheSocket()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1));
        using var channel = await agent.ConnectAsync("vm-1");

        var chunk = new byte[4096];
        Array.Fill(chunk, (byte)'x');
        try
        {
            for (var sent = 0; sent <= HandoffProtocol.MaximumLineBytes; sent += chunk.Length)
            {
                channel.SendRaw(chunk);
            }
        }
        catch (Exception exception) when (exception is System.Net.Sockets.SocketException or LinuxException)
        {
            // It was closed while this side still wrote.
        }

        Assert.Null(await channel.ReceiveAsync());
        Assert.Null(agent.Table.Find("vm-1")!.Attachment);
    }

    [Fact]
    public async Task Handoff_ManyHostilePeers_LeakNoDescriptor()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1));
        int uffd = _vmm.Userfaultfd.Number, memfd = _vmm.File.Descriptor.Number;
        await RefusalAsync(agent, uffd);
        var before = OpenGuestDescriptors();

        for (var i = 0; i < 20; i++)
        {
            await RefusalAsync(agent, uffd);
            await RefusalAsync(agent, memfd, uffd);
            await RefusalAsync(agent, [.. Enumerable.Repeat(memfd, HandoffProtocol.MaximumDescriptors)]);
            using var channel = await agent.ConnectAsync("vm-1");
            channel.SendHandoff(Bad["other layout"].Change(_vmm.Message()), uffd, memfd);
            Assert.Equal("layout-mismatch", (await channel.ReceiveAsync())?.Code);
        }

        // More than fit: all are closed, and so is the socket.
        using (var flood = await agent.ConnectAsync("vm-1"))
        {
            flood.SendHandoff(_vmm.Message(), [.. Enumerable.Repeat(memfd, 200)]);
            Assert.Null(await flood.ReceiveAsync());
        }

        Assert.Equal(before, OpenGuestDescriptors());
    }

    [Fact]
    public async Task Handoff_SameProcessAgain_KeepsTheAttachmentAndLeaksNothing()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1, new PageKey(5, 12)));
        using var first = await agent.AttachAsync(_vmm);
        var attachment = agent.Table.Find("vm-1")!.Attachment;
        var before = OpenGuestDescriptors();

        using var second = await agent.AttachAsync(_vmm);

        Assert.Same(attachment, agent.Table.Find("vm-1")!.Attachment);
        Assert.Equal(before, OpenGuestDescriptors());
        Assert.Equal(Errno.EFAULT, _vmm.Read(5).Error);
    }

    [Fact]
    [Trait("Invariant", "I5")]
    public async Task Events_SentAgain_AreStoredOnceAndAcknowledgedEachTime()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1));
        using (var channel = await agent.AttachAsync(_vmm))
        {
            channel.SendEvent(Hit(1, 7));
            Assert.Equal((AgentLine.Acknowledged, 1L), Of(await channel.ReceiveAsync()));
        }

        using var again = await agent.ConnectAsync("vm-1");
        again.SendHandoff(_vmm.Message(lastEvent: 2), _vmm.Userfaultfd.Number, _vmm.File.Descriptor.Number);
        Assert.Equal((AgentLine.Attached, 1L), Of(await again.ReceiveAsync()));
        again.SendEvent(Hit(1, 7));
        again.SendEvent(Poison(2, 8));
        var acknowledged = await again.ReceiveAsync();
        if (acknowledged?.Sequence == 1)
        {
            acknowledged = await again.ReceiveAsync();
        }

        Assert.Equal((AgentLine.Acknowledged, 2L), Of(acknowledged));
        Assert.Equal(
            [(AgentReport.Hit, 7L, 1L), (AgentReport.Poison, 8, 1), (AgentReport.Fault, 8, 1)],
            agent.Spool.Peek(10).Select(report => (report.Kind, report.Frame, report.Count)));
    }

    [Fact]
    [Trait("Invariant", "I8")]
    public async Task Events_GuestHammersOnePage_FewReportsCarryTheWholeCount()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1));
        using var channel = await agent.AttachAsync(_vmm);
        const int Hits = 2000;

        for (var i = 1; i <= Hits; i++)
        {
            channel.SendEvent(Hit(i, 7));
        }

        while (await channel.ReceiveAsync() is { } line && line.Sequence < Hits)
        {
        }

        var reports = agent.Spool.Peek(Hits);
        Assert.Equal(Hits, reports.Sum(report => report.Count));
        Assert.InRange(reports.Count, 1, Hits / 20);
    }

    [Theory]
    [InlineData("{\"type\":\"mce-injected\",\"sequence\":1,\"guestPhysicalAddress\":\"0x100000000\",\"count\":1,\"at\":\"2026-01-01T00:00:00Z\"}")]
    [InlineData("{\"type\":\"poison\",\"sequence\":1,\"guestPhysicalAddress\":\"0x0\",\"shift\":13,\"count\":1,\"at\":\"2026-01-01T00:00:00Z\"}")]
    [InlineData("{\"type\":\"poison\",\"sequence\":1,\"guestPhysicalAddress\":\"0x0\",\"shift\":30,\"count\":1,\"at\":\"2026-01-01T00:00:00Z\"}")]
    [InlineData("{\"type\":\"mce-injected\",\"sequence\":-1,\"guestPhysicalAddress\":\"0x0\",\"count\":1,\"at\":\"2026-01-01T00:00:00Z\"}")]
    [InlineData("{\"type\":\"mce-injected\",\"sequence\":1,\"guestPhysicalAddress\":\"0x0\",\"count\":-5,\"at\":\"2026-01-01T00:00:00Z\"}")]
    [InlineData("{\"type\":\"clear\",\"sequence\":1,\"guestPhysicalAddress\":\"0x0\",\"count\":1,\"at\":\"2026-01-01T00:00:00Z\"}")]
    [InlineData("garbage")]
    public async Task Events_Hostile_CloseTheSocketAndStoreNothing(string line)
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1, new PageKey(5, 12)));
        using var channel = await agent.AttachAsync(_vmm);

        channel.SendRaw(System.Text.Encoding.UTF8.GetBytes(line + "\n"));

        Assert.Equal("malformed-event", (await channel.ReceiveAsync())?.Code);
        Assert.Null(await channel.ReceiveAsync());
        Assert.Equal(0, agent.Spool.Count);
        Assert.Equal(Errno.EFAULT, _vmm.Read(5).Error);
    }

    /// <summary>The control plane knows an attachment that this agent does not: it says so, before anything is started and after.</summary>
    [Fact]
    public async Task VmThatAttachesByFirecracker_IsSaidToBeUnsupported()
    {
        Assert.StartsWith("no: ", CapabilityProbe.Table()[$"attach.{AttachKinds.Firecracker}"], StringComparison.Ordinal);

        var vm = TestAgent.Vm(_vmm, 1, new PageKey(30, 12));
        await using var agent = await TestAgent.StartAsync(_root.FullName, vm with { Attach = vm.Attach with { Kind = AttachKinds.Firecracker } });
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Status is not null);

        Assert.Equal((EnforcementStates.Pending, "attach-unsupported"), (agent.Table.Find("vm-1")!.Status!.State, agent.Table.Find("vm-1")!.Status!.Reason));
    }

    public void Dispose()
    {
        _vmm.Dispose();
        _root.Delete(recursive: true);
    }

    private async Task<string?> RefusalAsync(TestAgent agent, params int[] descriptors)
    {
        using var channel = await agent.ConnectAsync("vm-1");
        channel.SendHandoff(_vmm.Message(), descriptors);
        var line = await channel.ReceiveAsync();
        Assert.Equal(AgentLine.Rejected, line?.Type);
        Assert.Null(await channel.ReceiveAsync());
        return line?.Code;
    }

    // Every open copy of the guest's memory and userfaultfd, by inode, and of pidfds.
    private int OpenGuestDescriptors()
    {
        ulong memory = FileDescriptorInfo.Inode(_vmm.File.Descriptor), userfaultfd = FileDescriptorInfo.Inode(_vmm.Userfaultfd.Descriptor);
        return Directory.EnumerateFiles("/proc/self/fdinfo").Count(path =>
        {
            try
            {
                var text = File.ReadAllText(path);
                return text.Contains($"ino:\t{memory}\n", StringComparison.Ordinal) || text.Contains($"ino:\t{userfaultfd}\n", StringComparison.Ordinal)
                    || text.Contains("NSpid:", StringComparison.Ordinal);
            }
            catch (IOException)
            {
                return false;
            }
        });
    }

    private static (string?, long) Of(AgentLine? line) => (line?.Type, line?.Sequence ?? -1);

    private static HandoffMessage Region(HandoffMessage message, Func<HandoffRegion, HandoffRegion> change) =>
        message with { Regions = [change(message.Regions[0])] };

    private static VmmEvent Hit(long sequence, long frame) =>
        new(VmmEvent.MceInjected, sequence, HexAddress.Format(FrameMath.AddressOf(frame) + 8), null, null, "read", 0, 1, DateTimeOffset.UnixEpoch);

    private static VmmEvent Poison(long sequence, long frame) =>
        new(VmmEvent.Poison, sequence, HexAddress.Format(FrameMath.AddressOf(frame)), 12, "srar", null, null, 1, DateTimeOffset.UnixEpoch);

    /// <summary>A descriptor that is neither a userfaultfd nor a memfd.</summary>
    private sealed class EventSignalFile : IDisposable
    {
        private readonly FileDescriptor _descriptor = FileDescriptor.OpenRead("/dev/null");

        public int Number => _descriptor.Number;

        public void Dispose() => _descriptor.Dispose();
    }
}
