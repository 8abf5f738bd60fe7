using System.Diagnostics.Metrics;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Metrics;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>What takes markers away from a running guest, and how the agent learns of it: by an event where there is one, else at its next look.</summary>
public sealed class MarkerLossTests : IDisposable
{
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");

    public MarkerLossTests() => Requires.Userfaultfd();

    /// <summary>A balloon: the page is given back, and with it the marker.</summary>
    [Theory]
    [InlineData(MemoryClass.Memfd)]
    [InlineData(MemoryClass.Anonymous)]
    [Trait("Invariant", "I1")]
    public async Task Removed_WithRemoveEvents_IsArmedAgainWithoutWaitingForTheInterval(MemoryClass memory)
    {
        using var vmm = new TestVmm(memory: memory, events: UffdFeatures.EventRemove);
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 1, new PageKey(30, 12)));
        using var channel = await agent.ConnectAsync("vm-1");
        channel.SendHandoff(vmm.Message(), vmm.Descriptors);
        var served = channel.ServeZapsAsync(line =>
        {
            vmm.Zap(line);
            return null;
        });
        // Confirmed, not only set: only what was confirmed can be lost.
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Status?.State == EnforcementStates.Armed);
        using var lost = new LostMarkers();

        // Nobody asks for a look, and the interval is an hour.
        vmm.Memory.Advise(30 * TestVmm.PageBytes, TestVmm.PageBytes, MemoryAdvice.DontNeed);
        await TestAgent.UntilAsync(() => vmm.HasMarker(30));

        Assert.Equal(Errno.EFAULT, vmm.Read(30).Error);
        await TestAgent.UntilAsync(() => lost.Frames == 1);
        await agent.DisposeAsync();
        await served;
    }

    /// <summary>A guest reset in a VMM that maps poisoned pages anew (QEMU does): marker and registration are gone.</summary>
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task MappedAnew_WithUnmapEvents_IsRegisteredAndArmedAgainAtOnce()
    {
        using var vmm = new TestVmm(events: UffdFeatures.EventUnmap);
        vmm.Fill(30, 5);
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 1, new PageKey(30, 12)));
        using var channel = await agent.AttachAsync(vmm);

        vmm.Memory.Replace(30 * TestVmm.PageBytes, TestVmm.PageBytes, _ => { });
        await TestAgent.UntilAsync(() => vmm.HasMarker(30));

        Assert.Equal(Errno.EFAULT, vmm.Read(30).Error);
    }

    /// <summary>Without the event the memory is open until the agent looks: the interval is what bounds that.</summary>
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task MappedAnew_WithoutEvents_IsFoundAtTheNextLookRegisteredAndCounted()
    {
        using var vmm = new TestVmm();
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 1, new PageKey(30, 12), new PageKey(40, 12)));
        using var channel = await agent.AttachAsync(vmm);
        using var lost = new LostMarkers();
        vmm.Memory.Replace(0, vmm.Bytes, _ => { });
        Assert.Equal((Errno.None, (byte)0), vmm.Read(30));

        await agent.LookAsync("vm-1");

        Assert.Equal(Errno.EFAULT, vmm.Read(30).Error);
        Assert.Equal(Errno.EFAULT, vmm.Read(40).Error);
        Assert.Equal(2, lost.Frames);

        // The registration is back too: a marker that is lost now is a trap, and not zeros.
        vmm.Memory.Advise(40 * TestVmm.PageBytes, TestVmm.PageBytes, MemoryAdvice.DontNeed);
        Assert.Equal(Errno.EFAULT, await Task.Run(() => vmm.Read(40).Error, TestContext.Current.CancellationToken));
    }

    /// <summary>The first at once; what follows within a minute with the next, and at the latest when the agent ends.</summary>
    [Fact]
    [Trait("Invariant", "I8")]
    public async Task Lost_AgainAndAgain_IsToldOnceAndThenWithItsNumber()
    {
        using var vmm = new TestVmm();
        var vm = TestAgent.Vm(vmm, 1, new PageKey(30, 12), new PageKey(40, 12));
        var began = TimeProvider.System.GetUtcNow();
        await using (var agent = await TestAgent.StartAsync(_root.FullName, vm))
        {
            using var channel = await agent.AttachAsync(vmm);
            for (var loss = 0; loss < 4; loss++)
            {
                vmm.Memory.Advise(40 * TestVmm.PageBytes, TestVmm.PageBytes, MemoryAdvice.DontNeed);
                await agent.LookAsync("vm-1");
                Assert.True(vmm.HasMarker(40));
            }

            Assert.Equal(1, Assert.Single(agent.Spool.Peek(10)).Count);
        }

        await using var next = await TestAgent.StartAsync(_root.FullName);
        var told = next.Spool.Peek(10);

        Assert.Equal([(40L, 1L), (40L, 3L)], told.Select(report => (report.Frame, report.Count)));
        Assert.All(told, report => Assert.Equal(
            (AgentReport.MarkerLost, "vm-1", vm.MemoryInstance, vm.PlacementEpoch), (report.Kind, report.Vm, report.MemoryInstance, report.PlacementEpoch!.Value)));
        Assert.True(began <= told[0].FirstAt && told[0].FirstAt <= told[0].LastAt && told[0].LastAt <= told[1].FirstAt && told[1].FirstAt < told[1].LastAt);
    }

    public void Dispose() => _root.Delete(recursive: true);

    private sealed class LostMarkers : IDisposable
    {
        private readonly MeterListener _listener = new();
        private long _frames;

        public LostMarkers()
        {
            _listener.InstrumentPublished = (instrument, listener) =>
            {
                if (instrument.Meter.Name == AgentMeter.Name && instrument.Name == "markers.lost")
                {
                    listener.EnableMeasurementEvents(instrument);
                }
            };
            _listener.SetMeasurementEventCallback<long>((_, frames, _, _) => Interlocked.Add(ref _frames, frames));
            _listener.Start();
        }

        public long Frames => Interlocked.Read(ref _frames);

        public void Dispose() => _listener.Dispose();
    }
}
