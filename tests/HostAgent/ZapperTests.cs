using System.Net.Sockets;
using Fleet.Contracts;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;
using Fleet.Linux;
using Fleet.Linux.Processes;
using Fleet.Tests.Shared;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.HostAgent.Tests;

/// <summary>A VMM that is asked to zap and answers as it likes: it is its own loss, and no other VM's.</summary>
public sealed class ZapperTests : IDisposable
{
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");

    public ZapperTests() => Requires.Userfaultfd();

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task VmmThatAnswersWhatNobodyAskedWithoutEnd_KeepsNoOtherVmFromBeingArmed()
    {
        using var hostile = new TestVmm(memory: MemoryClass.Anonymous);
        hostile.Fill(100, 1);
        using var other = new TestVmm(vm: "vm-2");
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(hostile, 1, new PageKey(100, 12)), TestAgent.Vm(other, 1, new PageKey(5, 12)));
        using var channel = await agent.ConnectAsync("vm-1");
        channel.SendHandoff(hostile.Message(), hostile.Descriptors);
        Assert.Equal(AgentLine.Zap, (await channel.ReceiveAsync())?.Type);
        using var stop = new CancellationTokenSource();
        var flood = Task.Factory.StartNew(
            () =>
            {
                while (!stop.IsCancellationRequested)
                {
                    channel.SendZapped(new VmmZapped(VmmZapped.ZappedType, 0));
                }
            },
            CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        try
        {
            using var attached = await agent.AttachAsync(other);
            Assert.Equal(Errno.EFAULT, other.Read(5).Error);
            await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")!.Status is { State: EnforcementStates.Failed });
            Assert.False(hostile.HasMarker(100));
        }
        finally
        {
            await stop.CancelAsync();
            await flood;
        }
    }

    [Fact]
    public async Task VmmThatIsSlowEachTime_IsAskedNoMoreWhenTheLookHasUsedItsTime()
    {
        using var vmm = new TestVmm(memory: MemoryClass.Anonymous);
        vmm.Fill(7, 1);
        var time = new FakeTimeProvider();
        using var subject = new Subject(_root.FullName, vmm);

        // In time every time, and it does nothing: the kernel shows that, so that it is asked again.
        var (failures, asked) = await subject.ArmAsync(new ZapBudget(time), FrameSet.Of([new PageKey(7, 12)]), _ =>
        {
            time.Advance(TimeSpan.FromSeconds(1.9));
            return null;
        });

        Assert.Equal("zap in the VMM: ETIMEDOUT", Assert.Single(failures).Reason);
        Assert.Equal(3, asked);
        Assert.Equal(Errno.None, vmm.Read(7).Error);
    }

    [Fact]
    public async Task VmmThatStopsHalfWay_WhatItDidIsArmedAndOnlyTheRestFails()
    {
        using var vmm = new TestVmm(128 << 20, memory: MemoryClass.Anonymous);
        long[] frames = [.. Enumerable.Range(0, 8_010).Select(i => i * 3L)];
        foreach (var frame in frames)
        {
            vmm.Fill(frame, 1);
        }

        var time = new FakeTimeProvider();
        using var subject = new Subject(_root.FullName, vmm);
        var (failures, asked) = await subject.ArmAsync(new ZapBudget(time), FrameSet.Of(frames.Select(frame => new PageKey(frame, 12))), line =>
        {
            vmm.Zap(line);
            time.Advance(TimeSpan.FromMinutes(1));
            return null;
        });

        Assert.Equal((1, 10), (asked, failures.Count));
        Assert.Equal(Errno.EFAULT, vmm.Read(0).Error);
        Assert.Equal(Errno.EFAULT, vmm.Read(frames[7_999]).Error);
        Assert.Equal(frames[8_000..], failures.Select(failure => failure.Range.Start));
    }

    public void Dispose() => _root.Delete(recursive: true);

    /// <summary>The agent's side of the connection without the agent, so that its clock can be another.</summary>
    private sealed class Subject : IDisposable
    {
        private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        private readonly TestChannel _channel = new();
        private readonly Pidfd _pidfd = Pidfd.Open(Environment.ProcessId);
        private readonly VmmZapper _zapper = new();
        private readonly Attachment _attachment;

        public Subject(string root, TestVmm vmm)
        {
            _listener.Bind(new UnixDomainSocketEndPoint(Path.Combine(root, "zap")));
            _listener.Listen(1);
            _channel.Connect(Path.Combine(root, "zap"));
            _attachment = new Attachment(
                "vm-1", 1, ProcessIdentity.Of(Environment.ProcessId)!, _pidfd, vmm.Userfaultfd, vmm.Userfaultfd.Number,
                new GuestLayout([new GuestRegion(0, vmm.Bytes, vmm.Memory.Address, TestVmm.PageBytes, GuestBacking.Anonymous(TestVmm.PageBytes))])) { Zapper = _zapper };
        }

        public async Task<(IReadOnlyList<ArmFailure> Failures, int Asked)> ArmAsync(ZapBudget budget, FrameSet frames, Func<AgentLine, string?> zap)
        {
            var asked = 0;
            using var agentsEnd = await _listener.AcceptAsync(TestContext.Current.CancellationToken);
            using var writer = new AgentLineWriter(agentsEnd);
            using var stop = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
            var telling = _zapper.RunAsync(writer, stop.Token);
            var answering = AnswerAsync();
            var failures = await Task.Run(() => Enforcer.Arm(_attachment, frames, budget: budget), TestContext.Current.CancellationToken);
            await stop.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => telling);
            agentsEnd.Shutdown(SocketShutdown.Both);
            await answering;
            return (failures, asked);

            async Task AnswerAsync()
            {
                while (await _channel.ReceiveAsync() is { } line)
                {
                    asked++;
                    _zapper.Take(new VmmZapped(VmmZapped.ZappedType, line.Sequence, zap(line)));
                }
            }
        }

        public void Dispose()
        {
            _attachment.Dispose();
            _channel.Dispose();
            _listener.Dispose();
        }
    }
}
