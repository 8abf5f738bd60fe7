using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Hits;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Options;
using Fleet.Linux.Tracing;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>
/// Accesses to armed pages as the kernel of this machine shows them, for a VMM that says nothing of them: the test process itself. A vCPU's
/// accesses (kvm_page_fault) need a KVM that maps guest memory: tests/Lab.
/// </summary>
public sealed class ObservationTests : IDisposable
{
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fleet-observe-");

    [Fact]
    [Trait("Invariant", "I8")]
    public async Task AccessesOfTheVmmsThreads_AreHitsWithTheirKind_AndThoseToOtherPagesAreNot()
    {
        using var fs = Prepare();
        using var toucher = await Toucher.CreateAsync();
        using var vmm = new TestVmm();
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 5, new PageKey(10, 12), new PageKey(20, 12)));
        using var channel = await agent.AttachAsync(vmm);

        Assert.Equal(1, toucher.Write(vmm.Address(10) + 8));
        Assert.Equal(2, toucher.Read(vmm.Address(20), 2));
        Assert.Equal(0, toucher.Write(vmm.Address(11)));
        await TestAgent.UntilAsync(() => agent.Spool.Count >= 2);

        Assert.Equal(
            [(10L, 1L, HitAccesses.Write), (20L, 2L, HitAccesses.Read)],
            agent.Spool.Peek(10).OrderBy(hit => hit.Frame).Select(hit => (hit.Frame, hit.Count, hit.Access!)));
        Assert.All(agent.Spool.Peek(10), hit => Assert.Equal(
            (AgentReport.Hit, HitEvidences.UserPageFault, HitOutcomes.Unknown, "vm-1", 1L, 1L),
            (hit.Kind, hit.Evidence, hit.Outcome, hit.Vm, hit.MemoryInstance, hit.PlacementEpoch)));

        // The filter follows the set: a page that is armed now, and one that is not any more.
        await agent.AdoptAndWaitAsync(TestAgent.Vm(vmm, 6, new PageKey(20, 12), new PageKey(30, 12)));
        Assert.Equal(0, toucher.Read(vmm.Address(10)));
        Assert.Equal(1, toucher.Read(vmm.Address(30)));
        await TestAgent.UntilAsync(() => agent.Spool.Count >= 3);
        Assert.Equal((30L, 1L), (agent.Spool.Peek(10)[^1].Frame, agent.Spool.Peek(10)[^1].Count));
        Assert.Equal(0, agent.Observer.Dropped);
    }

    /// <summary>More pages than the kernel's filter has room for: it lets others through, and the agent must not take those for hits.</summary>
    [Fact]
    public async Task MorePagesThanAFilterHolds_EachIsSeen_AndThoseBetweenThemAreNoHits()
    {
        using var fs = Prepare();
        using var toucher = await Toucher.CreateAsync();
        using var vmm = new TestVmm();
        var pages = Enumerable.Range(5, 200).Select(index => new PageKey(index * 2, 12)).ToArray();
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 5, pages));
        using var channel = await agent.AttachAsync(vmm);

        for (var frame = 10; frame < 410; frame++)
        {
            Assert.Equal(frame % 2 == 0 ? 1 : 0, toucher.Read(vmm.Address(frame)));
        }

        await TestAgent.UntilAsync(() => agent.Spool.Peek(1000).Sum(hit => hit.Count) >= 200);
        Assert.Equal(pages.Select(page => (page.Frame, 1L)), agent.Spool.Peek(1000).OrderBy(hit => hit.Frame).Select(hit => (hit.Frame, hit.Count)));

        // Of a VM that concerns this host no more, whose pages stay armed: told under the epoch that was known last.
        await agent.Desired.RemoveAsync("vm-1", TestContext.Current.CancellationToken);
        Assert.Equal(1, toucher.Read(vmm.Address(10)));
        await TestAgent.UntilAsync(() => agent.Spool.Peek(1000).Count > 200);
        Assert.Equal((10L, 1L), (agent.Spool.Peek(1000)[^1].Frame, agent.Spool.Peek(1000)[^1].PlacementEpoch));
    }

    [Fact]
    [Trait("Invariant", "I5")]
    public async Task AccessThatTheVmmReportsToo_IsOneHit()
    {
        using var fs = Prepare();
        using var toucher = await Toucher.CreateAsync();
        using var vmm = new TestVmm();
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 5, new PageKey(10, 12)));
        using var channel = await agent.AttachAsync(vmm);

        Assert.Equal(2, toucher.Write(vmm.Address(10), 2));
        channel.SendEvent(new VmmEvent(VmmEvent.MceInjected, 1, HexAddress.Format(FrameMath.AddressOf(10)), null, null, null, 3, 2, DateTimeOffset.UnixEpoch));
        Assert.Equal(AgentLine.Acknowledged, (await channel.ReceiveAsync())?.Type);
        // Once more, seen by the kernel alone: had the first two been left over there, they would come with it.
        Assert.Equal(1, toucher.Read(vmm.Address(10)));
        await TestAgent.UntilAsync(() => agent.Spool.Count >= 2);

        Assert.Equal(
            [(2L, HitAccesses.Write, 3, HitEvidences.UserPageFault, HitOutcomes.MceInjected), (1L, HitAccesses.Read, null, HitEvidences.UserPageFault, HitOutcomes.Unknown)],
            agent.Spool.Peek(10).Select(hit => (hit.Count, hit.Access!, hit.Vcpu, hit.Evidence!, hit.Outcome!)));
    }

    /// <summary>Whatever the guest does, each access is in a hit or counted as dropped, and the page costs a few rows.</summary>
    [Fact]
    [Trait("Invariant", "I8")]
    public async Task PageThatIsHammered_CostsAFewReports_AndEveryAccessIsCounted()
    {
        using var fs = Prepare();
        using var toucher = await Toucher.CreateAsync();
        using var vmm = new TestVmm();
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 5, new PageKey(10, 12), new PageKey(20, 12)));
        using var channel = await agent.AttachAsync(vmm);
        const int Times = 200_000;

        Assert.Equal(Times, toucher.Read(vmm.Address(10), Times));
        Assert.Equal(1, toucher.Read(vmm.Address(20)));
        long Hits() => agent.Spool.Peek(1000).Where(hit => hit.Kind == AgentReport.Hit).Sum(hit => hit.Count);
        await TestAgent.UntilAsync(() => Hits() + agent.Observer.Dropped >= Times + 1 && agent.Spool.Peek(1000).Any(hit => hit.Frame == 20));

        // Where the page goes over to those that are only counted, some are counted on both sides.
        Assert.True(Hits() + agent.Observer.Dropped < 2 * Times);
        Assert.True(agent.Observer.Dropped > 0, "it was to be faster than what is read");
        var reports = agent.Spool.Peek(1000);
        Assert.InRange(reports.Count, 2, 40);
        // The other page is not lost over it.
        Assert.Equal(1, Assert.Single(reports, hit => hit.Frame == 20).Count);
    }

    [Fact]
    public async Task InstancesOfTheAgent_AreGoneWhenItStops_AndThoseOfKilledOnesWhenItStarts()
    {
        using var fs = Prepare();
        using var vmm = new TestVmm();
        var owner = MemoryFailureWatch.Owner(new AgentOptions { Host = "host-a" });
        var mine = $"{owner}-{Environment.ProcessId}-";
        // Of this process's number, in a life that it had before.
        using var left = fs.CreateNamed($"{mine}1-accesses1");
        await using (var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 5, new PageKey(10, 12))))
        {
            using var channel = await agent.AttachAsync(vmm);
            Assert.Contains(fs.InstanceNames(), name => name.StartsWith(mine, StringComparison.Ordinal));
            Assert.DoesNotContain(left.Name, fs.InstanceNames());
        }

        Assert.DoesNotContain(fs.InstanceNames(), name => name.StartsWith(mine, StringComparison.Ordinal));
    }

    [Fact]
    public void CapabilityTable_SaysWhatObservationIsMadeOf()
    {
        var table = CapabilityProbe.Table();
        Assert.Contains(table["observation"], new[] { "kernel", "vmm" });
        Assert.Equal(table["observation"] == "kernel", table["observation.kvm-page-fault"] == "yes" || table["observation.user-page-fault"] == "yes");
        Assert.All(
            [table["observation.kvm-page-fault"], table["observation.user-page-fault"]],
            value => Assert.True(value == "yes" || value.StartsWith("no: ", StringComparison.Ordinal), value));
    }

    public void Dispose() => _root.Delete(recursive: true);

    private static TraceFs Prepare()
    {
        Requires.Userfaultfd();
        return Requires.TraceFs(UserPageFaultEvent.Name);
    }
}
