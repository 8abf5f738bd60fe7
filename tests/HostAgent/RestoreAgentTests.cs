using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.HostAgent.Reconcile;
using Fleet.Linux;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>B17 against the real kernel: the control plane has forgotten poisoned pages, and the guest never reads one of them.</summary>
public sealed class RestoreAgentTests : IDisposable
{
    private static readonly long New = StoreEpochs.FloorOf(1);
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");
    private readonly TestVmm _vmm;

    public RestoreAgentTests()
    {
        Requires.Userfaultfd();
        _vmm = new TestVmm();
    }

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    private DesiredVm Forgetful => TestAgent.Vm(_vmm, New + 1, new PageKey(11, 12)) with { PlacementEpoch = New + 1 };

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task B17_QuarantinedViewWithFewerPages_DisarmsNothing()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 5, new PageKey(10, 12), new PageKey(11, 12)));
        using var channel = await agent.AttachAsync(_vmm);

        await agent.Desired.AdoptAsync(Forgetful with { Quarantined = true }, Cancelled);
        await LookedAtAsync(agent);

        Assert.Equal((Errno.EFAULT, Errno.EFAULT), (_vmm.Read(10).Error, _vmm.Read(11).Error));
        Assert.True(agent.Table.Find("vm-1")!.Desired!.Quarantined);
    }

    /// <summary>The VM was taken from this host by the restored database, and comes back to it: nothing is known here but what is armed.</summary>
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task B17_QuarantinedViewOfAVmThatWasRemoved_DisarmsNothing()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 5, new PageKey(10, 12), new PageKey(11, 12)));
        using var channel = await agent.AttachAsync(_vmm);
        await agent.Desired.RemoveAsync("vm-1", Cancelled);

        await agent.AdoptAndWaitAsync(Forgetful with { Quarantined = true });

        Assert.Equal((Errno.EFAULT, Errno.EFAULT), (_vmm.Read(10).Error, _vmm.Read(11).Error));
        Assert.True(agent.Table.Find("vm-1")!.Attachment!.Trapped.Contains(10));
    }

    /// <summary>The negative control of both: believed, the same view makes the page ordinary memory.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Control_TheSameViewUnquarantined_Disarms(bool removed)
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 5, new PageKey(10, 12), new PageKey(11, 12)));
        using var channel = await agent.AttachAsync(_vmm);
        if (removed)
        {
            await agent.Desired.RemoveAsync("vm-1", Cancelled);
        }

        await agent.AdoptAndWaitAsync(Forgetful);

        Assert.Equal((Errno.None, Errno.EFAULT), (_vmm.Read(10).Error, _vmm.Read(11).Error));
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task B17_ViewOfAnOlderStoreEpoch_IsRefusedAfterThePromise()
    {
        await using (var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 5, new PageKey(10, 12), new PageKey(11, 12))))
        {
            using var channel = await agent.AttachAsync(_vmm);
            await agent.Stating.PromiseAsync(1, Cancelled);
            Assert.Equal(DesiredVerdict.Older, await agent.Desired.AdoptAsync(TestAgent.Vm(_vmm, 6, new PageKey(11, 12)), Cancelled));
        }

        // Also in the agent's next life.
        await using var second = await TestAgent.StartAsync(_root.FullName);
        using var again = await second.AttachAsync(_vmm);
        Assert.Equal(1, second.Promise.StoreEpoch);
        Assert.Equal(DesiredVerdict.Older, await second.Desired.AdoptAsync(TestAgent.Vm(_vmm, 6, new PageKey(11, 12)), Cancelled));
        Assert.Equal(Errno.EFAULT, _vmm.Read(10).Error);
    }

    /// <summary>The control plane took the report and then lost it with its database; the desired set never had the page.</summary>
    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Statement_HoldsAPageWhoseReportWasTakenAndLost_AndAllThatIsArmed()
    {
        await using (var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 5, new PageKey(10, 12))))
        {
            using var channel = await agent.AttachAsync(_vmm);
            channel.SendEvent(new VmmEvent(VmmEvent.Poison, 1, HexAddress.Format(FrameMath.AddressOf(30)), 12, "srar", null, null, 1, DateTimeOffset.UnixEpoch));
            await TestAgent.UntilAsync(() => agent.Spool.Count == 2);
            agent.Spool.Acknowledge(2);
        }

        await using var second = await TestAgent.StartAsync(_root.FullName);
        await TestAgent.UntilAsync(() => second.Table.Find("vm-1")?.Attachment is not null);
        var stated = Assert.Single(await second.Stating.CollectAsync(Cancelled));

        Assert.Equal([new PageKey(10, 12), new PageKey(30, 12)], stated.Pages);
        Assert.Equal(("vm-1", true, null), (stated.Vm, stated.Unguarded, stated.Right));
        Assert.Equal(_vmm.Layout, stated.Memory);
        Assert.Equal("handoff", stated.Attach?.Kind);

        // Once the set has it, it is the set's: a clear there counts.
        await second.AdoptAndWaitAsync(TestAgent.Vm(_vmm, 6, new PageKey(10, 12), new PageKey(30, 12)));
        await second.AdoptAndWaitAsync(TestAgent.Vm(_vmm, 7, new PageKey(10, 12)));
        Assert.Equal([new PageKey(10, 12)], Assert.Single(await second.Stating.CollectAsync(Cancelled)).Pages);
    }

    /// <summary>Markers that no record of this agent mentions any more.</summary>
    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Statement_OfAVmThatWasRemoved_HoldsWhatItsVmmHasArmed()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 5, new PageKey(10, 12)));
        using var channel = await agent.AttachAsync(_vmm);
        await agent.Desired.RemoveAsync("vm-1", Cancelled);
        agent.Table.Find("vm-1")!.Attachment!.Trapped = Enforce.FrameSet.Empty;

        var stated = Assert.Single(await agent.Stating.CollectAsync(Cancelled));

        Assert.Equal([new PageKey(10, 12)], stated.Pages);
        Assert.Null(stated.Attach);
        Assert.Equal(_vmm.Layout, stated.Memory);
    }

    public void Dispose()
    {
        _vmm.Dispose();
        _root.Delete(recursive: true);
    }

    private static async Task LookedAtAsync(TestAgent agent)
    {
        var entry = agent.Table.Find("vm-1")!;
        for (var look = 0; look < 2; look++)
        {
            var before = entry.StatusAt;
            agent.Work.Add("vm-1");
            await TestAgent.UntilAsync(() => entry.StatusAt != before);
        }
    }
}
