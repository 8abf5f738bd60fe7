using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Gate;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Restore;
using Fleet.Linux.Processes;

namespace Fleet.HostAgent.Tests;

/// <summary>The agent's rules for a control plane whose database was put back from a backup (GATE, B17 and B18).</summary>
public sealed class RestoreRulesTests
{
    private static readonly ProcessIdentity Vmm = new("boot", 10, 1);
    private static readonly long New = StoreEpochs.FloorOf(1);
    private static readonly GateRecord Open = new("vm-1", Right: 100, MemoryInstance: 90, Vmm: Vmm);

    [Fact]
    [Trait("Invariant", "I4")]
    public void B18_ViewOfAnOlderStoreEpoch_IsRefusedFromThePromiseOn()
    {
        var old = View(generation: 900, epoch: 900);

        Assert.Equal(DesiredVerdict.Adopt, DesiredRules.Judge(null, old));
        Assert.Equal(DesiredVerdict.Older, DesiredRules.Judge(null, old, promised: 1));
        Assert.Equal(DesiredVerdict.Older, DesiredRules.Judge(View(1, 1), old, promised: 1));
        Assert.Equal(DesiredVerdict.Adopt, DesiredRules.Judge(View(1, 1), View(New + 1, New + 1), promised: 1));
        Assert.Equal(DesiredVerdict.Older, DesiredRules.Judge(null, View(New + 1, New + 1), promised: 2));
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public void B17_QuarantinedView_ChangesNothingThatWasKnown()
    {
        var known = View(5, 5, new PageKey(10, 12), new PageKey(11, 12)) with
        {
            ResetWanted = true,
            Migration = new DesiredMigration("m-1", "switching", "host-a", "host-b", null, false, null),
        };
        var view = View(New + 1, New + 1, new PageKey(11, 12)) with { Quarantined = true };

        var taken = DesiredRules.Take(known, view);

        Assert.Equal(known with { Quarantined = true, ResetWanted = false, Migration = null }, taken);
        Assert.Same(taken, DesiredRules.Take(taken, view with { Generation = New + 2 }));
        Assert.Same(view, DesiredRules.Take(null, view));
        var delta = new DesiredDelta("vm-1", 5, 5, New + 3, string.Empty, [], [new PageKey(10, 12)]);
        Assert.Equal(DesiredVerdict.Older, DesiredRules.Apply(taken, delta).Verdict);

        // What ends it is a whole view.
        var end = View(New + 9, New + 9, new PageKey(10, 12));
        Assert.Equal(DesiredVerdict.Adopt, DesiredRules.Judge(taken, end, promised: 1));
        Assert.Same(end, DesiredRules.Take(taken, end));
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public void Promise_WithoutALiveRight_ClosesTheBarrierForEveryOlderEpoch()
    {
        var closed = StatementRules.Close(Open with { Renounced = "m-1", Lifted = "m-0" }, vmmOfRecordLives: false, 1);
        Assert.Equal(Open with { Closed = New - 1 }, closed);
        Assert.Equal(New - 1, StatementRules.Close(new GateRecord("vm-1"), false, 1).Closed);
        Assert.Equal(New - 1, StatementRules.Close(Open with { Closed = 100 }, true, 1).Closed);

        // A live right goes on, and what is closed higher is never opened by it.
        Assert.Equal(Open with { Renounced = null }, StatementRules.Close(Open with { Renounced = "m-1" }, vmmOfRecordLives: true, 1));
        Assert.Equal(New + 5, StatementRules.Close(Open with { Closed = New + 5 }, false, 1).Closed);
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public void Gate_QuarantinedOrOlderView_GivesNoStepAtAll()
    {
        var running = new VmmView(Vmm, 90, null, true, VmmStates.Running, false, null);
        var fence = new GateView("host-a", View(New + 1, New + 1) with { Owner = "host-b" }, Open, running, true, true, false);
        Assert.Equal([new GateStep.Fence()], GateRules.Decide(fence));

        Assert.Empty(GateRules.Decide(fence with { Desired = fence.Desired with { Quarantined = true } }));
        Assert.Empty(GateRules.Decide(fence with { IsOlder = true }));

        // Unverified, without a right: held, but never because of a view that may be wrong.
        var stale = fence with { Desired = fence.Desired with { Owner = "host-a" }, Record = new GateRecord("vm-1"), Verified = false };
        Assert.Equal([new GateStep.Hold()], GateRules.Decide(stale));
        Assert.Empty(GateRules.Decide(stale with { Desired = stale.Desired with { Quarantined = true } }));
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public void Return_AfterTheQuarantine_TakesTheRightAnewWhereTheGuestRuns()
    {
        var running = new VmmView(Vmm, 90, null, true, VmmStates.Running, false, null);
        var desired = View(New + 9, New + 9) with { MemoryInstance = 90 };

        Assert.Contains(new GateStep.TakeRight(New + 9, null), GateRules.Decide(new GateView("host-a", desired, Open, running, true, true, false)));
    }

    [Fact]
    public void Statement_SaysWhatTheRecordHolds()
    {
        var live = State(Open, lives: true);
        Assert.Equal((100L, 90L, true, false, null), (live.Right!.Value, live.RightMemoryInstance!.Value, live.Live, live.Sealed, live.SealedTo));
        Assert.Equal(("boot:10:1", null), (live.VmmInstance, live.Closed));
        Assert.False(State(Open, lives: false).Live);

        // A park and a migration are told apart, also behind the promise.
        var record = StatementRules.Close(Open with { Closed = 100, Sealed = new SealRecord("m-1", 100, "boot-b:2:2", true) }, true, 1);
        Assert.Equal((false, true, "boot-b:2:2"), State(record, lives: true) is var migrated ? (migrated.Live, migrated.Sealed, migrated.SealedTo) : default);
        var parked = State(record with { Sealed = new SealRecord("park-1", 100, null, true) }, lives: false);
        Assert.Equal((true, null), (parked.Sealed, parked.SealedTo));

        // The seal of a right before this one says nothing of this one.
        Assert.False(State(Open with { Right = 120, Sealed = new SealRecord("m-1", 100, "boot-b:2:2", true) }, lives: true).Sealed);
        Assert.Equal((null, null, null), State(new GateRecord("vm-1"), lives: false) is var never ? (never.Right, never.RightMemoryInstance, never.VmmInstance) : default);
    }

    [Fact]
    public void HighestSeen_IsTheHighestOfAllThatIsOnDisk()
    {
        Assert.Equal(0, StatementRules.HighestSeen([], [], null, 0));
        Assert.Equal(70, StatementRules.HighestSeen([View(70, 60)], [Open with { Right = 30, MemoryInstance = 20 }], 40, 0));
        Assert.Equal(100, StatementRules.HighestSeen([View(70, 60)], [Open], 40, 0));
        Assert.Equal(400, StatementRules.HighestSeen([View(70, 60)], [Open], 400, 0));
        Assert.Equal(StoreEpochs.FloorOf(3), StatementRules.HighestSeen([View(70, 60)], [Open], 400, 3));
    }

    private static VmStatement State(GateRecord record, bool lives) => StatementRules.State(record, lives, null, 0, false, null, []);

    private static DesiredVm View(long generation, long epoch, params PageKey[] pages) => new(
        "vm-1", "host-a", [], new VmAttach("handoff"), 5, generation, epoch, PoisonDigest.Compute("vm-1", 5, pages), pages);
}
