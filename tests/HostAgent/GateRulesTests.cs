using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Gate;
using Fleet.Linux.Processes;

namespace Fleet.HostAgent.Tests;

/// <summary>The agent's rules of the gate; names are the lines of GATE.md, "What broke the first design", that they answer.</summary>
[Trait("Invariant", "I4")]
public sealed class GateRulesTests
{
    private const long Memory = 100;
    private const long Epoch = 100;
    private static readonly ProcessIdentity Vmm = new("boot", 10, 1);
    private static readonly ProcessIdentity OtherVmm = new("boot", 11, 2);
    private const string Target = "boot-b:20:3";

    [Fact]
    public void ColdStart_FreshMemoryInstanceOnItsFirstOwner_TakesTheRight()
    {
        Assert.Equal([new GateStep.TakeRight(Epoch, null)], Decide(Source(record: new GateRecord("vm-1"), state: VmmStates.Held)));

        // Not before every page is verified, not in a process that says it runs already, not with a migration under way.
        Assert.DoesNotContain(Decide(Source(record: new GateRecord("vm-1"), state: VmmStates.Held) with { Verified = false }), IsTakeRight);
        Assert.DoesNotContain(Decide(Source(record: new GateRecord("vm-1"), state: VmmStates.Running)), IsTakeRight);
        Assert.DoesNotContain(Decide(Source(Switching(), new GateRecord("vm-1"), VmmStates.Held)), IsTakeRight);
    }

    [Fact]
    public void ColdStart_OwnershipHasMovedBefore_IsRefused() =>
        Assert.DoesNotContain(Decide(Source(record: new GateRecord("vm-1"), state: VmmStates.Held, epoch: Epoch + 5)), IsTakeRight);

    [Fact]
    public void B14_ReturnToAnEmptyVmm_IsRefused()
    {
        var steps = Decide(Source(record: Held with { Vmm = OtherVmm }, state: VmmStates.Held, epoch: Epoch + 5));

        Assert.Equal([new GateStep.Hold()], steps);
    }

    [Fact]
    public void A1_SourceResumedAfterItsSeal_IsLatched()
    {
        var after = Held with { Closed = Epoch, Sealed = new SealRecord("m-1", Epoch, Target, Spooled: true) };

        Assert.Equal([new GateStep.Hold()], Decide(Source(Switching(), after, VmmStates.Running)));
        Assert.Equal([new GateStep.Hold()], Decide(Source(Switching(), after, VmmStates.Held)));

        // And then the grant.
        var granted = Source(Switching() with { State = MigrationStates.Granted }, after, VmmStates.Running, epoch: Epoch + 1);
        Assert.Equal([new GateStep.Hold()], Decide(granted with { Desired = granted.Desired with { Owner = "host-b" } }));
    }

    [Fact]
    public void A10_B1_B2_SealedWhileRunning_NeedsAPausedAndLatchedGuestWhoseStreamEnded()
    {
        Assert.Equal([new GateStep.Hold()], Decide(Source(Switching(), Held, VmmStates.Running, latched: false)));
        Assert.DoesNotContain(Decide(Source(Switching(), Held, VmmStates.Held, stream: Target, latched: false)), step => step is GateStep.Seal);
        Assert.DoesNotContain(Decide(Source(Switching(), Held, VmmStates.Running, stream: Target)), step => step is GateStep.Seal);
        Assert.DoesNotContain(Decide(Source(Switching(), Held, VmmStates.Held, stream: null)), step => step is GateStep.Seal);
        var unheard = Source(Switching(), Held, VmmStates.Held, stream: Target);
        Assert.DoesNotContain(Decide(unheard with { Vmm = unheard.Vmm! with { EventsStored = false } }), step => step is GateStep.Seal);
        Assert.Equal([new GateStep.Seal("m-1", Epoch, Target)], Decide(Source(Switching(), Held, VmmStates.Held, stream: Target)));
    }

    [Fact]
    public void C5_DelayedViewOfSwitching_DoesNotSealAgain()
    {
        // The return moved the right on; the old view still says switching at the old epoch.
        var returned = Held with { Right = Epoch + 5, Closed = Epoch };

        Assert.DoesNotContain(Decide(Source(Switching(), returned, VmmStates.Held, stream: Target)), step => step is GateStep.Seal);
    }

    [Fact]
    public void A6_SealForgottenInACrash_IsOnDiskAndSpooledAgain()
    {
        var crashed = Held with { Closed = Epoch, Sealed = new SealRecord("m-1", Epoch, Target, Spooled: false) };

        Assert.Contains(new GateStep.SpoolAgain(), Decide(Source(Switching(), crashed, VmmStates.Held, stream: Target)));
        Assert.DoesNotContain(Decide(Source(Switching(), crashed, VmmStates.Held, stream: Target)), step => step is GateStep.Run);
    }

    [Fact]
    public void A2_AbortFreesTheSourceOnlyUnderANewEpoch()
    {
        var closed = Held with { Closed = Epoch };

        Assert.DoesNotContain(Decide(Source(record: closed, state: VmmStates.Held)), IsTakeRight);
        Assert.Equal([new GateStep.TakeRight(Epoch + 7, null)], Decide(Source(record: closed, state: VmmStates.Held, epoch: Epoch + 7)));
    }

    [Fact]
    public void B13_ReturnUnarmed_Waits() =>
        Assert.DoesNotContain(
            Decide(Source(record: Held with { Closed = Epoch }, state: VmmStates.Held, epoch: Epoch + 7) with { Verified = false }), IsTakeRight);

    [Fact]
    public void C6_FalselyFencedSource_FencesItself()
    {
        var view = Source(record: Held, state: VmmStates.Running, epoch: Epoch + 3);
        var steps = Decide(view with { Desired = view.Desired with { Owner = "host-b" } });

        Assert.Equal([new GateStep.Fence()], steps);
    }

    [Fact]
    public void B7_ArmedBeforeTheLoadEnded_IsNotAcknowledged()
    {
        Assert.Empty(Decide(TargetView(VmmStates.Incoming)));
        Assert.Equal([new GateStep.Acknowledge("m-1")], Decide(TargetView(VmmStates.Loaded)));
        Assert.Empty(Decide(TargetView(VmmStates.Loaded) with { Verified = false }));
    }

    [Fact]
    public void OneVmmEach_ProcessOfAnotherMigrationOrMemoryInstance_IsNotAcknowledged()
    {
        var view = TargetView(VmmStates.Loaded);

        Assert.Empty(Decide(view with { Vmm = view.Vmm! with { IncomingFor = "m-0" } }));
        Assert.Empty(Decide(view with { Vmm = view.Vmm! with { MemoryInstance = Memory - 1 } }));
        Assert.DoesNotContain(Decide(view with { Record = new GateRecord("vm-1", 50, 50, Memory, view.Vmm!.Identity) }), step => step is GateStep.Acknowledge);
    }

    [Fact]
    public void Lift_PermitForThisProcessVerified_TakesTheRight() =>
        Assert.Equal([new GateStep.TakeRight(Epoch + 1, "m-1")], Decide(Granted()));

    [Fact]
    public void Lift_UnverifiedOrOlderSet_Waits()
    {
        var view = Granted();

        Assert.Empty(Decide(view with { Verified = false }));
        Assert.Empty(Decide(view with { Desired = view.Desired with { Generation = 1 } }));
    }

    [Fact]
    public void A5_LatePermitAfterARenounce_IsNotUsed()
    {
        var view = Granted() with { Record = new GateRecord("vm-1", Closed: Epoch + 1) };

        Assert.DoesNotContain(Decide(view), IsTakeRight);
        Assert.DoesNotContain(Decide(view), step => step is GateStep.Run);
    }

    [Fact]
    public void B5_C1_TargetVmmRestartedAfterItsAck_IsRenouncedAndNeverLifted()
    {
        var view = Granted();
        var restarted = view with { Vmm = view.Vmm! with { Identity = OtherVmm }, VmmOfPermitLives = false };

        Assert.Equal([new GateStep.Renounce("m-1", Epoch + 1)], Decide(restarted));
        Assert.Equal([new GateStep.Renounce("m-1", Epoch + 1)], Decide(restarted with { Vmm = null }));

        // The agent alone restarted: the VMM lives and will hand over again.
        Assert.Empty(Decide(view with { Vmm = null }));
    }

    [Fact]
    public void A4_AbortAfterTheGrant_IsRenouncedOnlyBeforeTheLift()
    {
        var view = Granted();
        var wanted = view with { Desired = view.Desired with { Migration = view.Desired.Migration! with { ReturnWanted = true } } };

        Assert.Equal([new GateStep.Renounce("m-1", Epoch + 1)], Decide(wanted));
        var lifted = wanted with { Record = new GateRecord("vm-1", Epoch + 1, 0, Memory, view.Vmm!.Identity) };
        Assert.DoesNotContain(Decide(lifted), step => step is GateStep.Renounce);
    }

    [Fact]
    public void Crash_AfterTheRightAndBeforeTheRun_RunsAndReportsAgain()
    {
        var view = Granted();
        var crashed = view with { Record = new GateRecord("vm-1", Epoch + 1, 0, Memory, view.Vmm!.Identity, Lifted: "m-1") };

        Assert.Equal([new GateStep.SpoolAgain(), new GateStep.Run()], Decide(crashed));
    }

    [Fact]
    public void Pause_ByTheOrchestratorAfterItsStreamEnded_IsNotUndone() =>
        Assert.Empty(Decide(Source(Preparing(), Held, VmmStates.Held, stream: Target)));

    [Fact]
    public void Quarantined_DoesNothing()
    {
        var view = Granted();

        Assert.Empty(Decide(view with { Desired = view.Desired with { Quarantined = true } }));
    }

    [Fact]
    public void B12_ResetWhileTheOldRamRuns_IsAttestedOnlyWhenNoVmmIsThere()
    {
        var view = Source(record: Held, state: VmmStates.Held);
        var wanted = view with { Desired = view.Desired with { ResetWanted = true } };

        Assert.DoesNotContain(Decide(wanted), step => step is GateStep.AttestGone);
        Assert.DoesNotContain(Decide(wanted with { Vmm = null, VmmOfRecordLives = true }), step => step is GateStep.AttestGone);
        Assert.Equal([new GateStep.AttestGone(Memory)], Decide(wanted with { Vmm = null, VmmOfRecordLives = false }));
    }

    [Fact]
    public void DeviceDma_OnTheTarget_IsAnObstacleAndNeitherAcknowledgedNorLifted()
    {
        var (loaded, granted) = (TargetView(VmmStates.Loaded), Granted());

        Assert.Equal([new GateStep.Obstacle("m-1", "device-dma", "x")], Decide(loaded with { Vmm = loaded.Vmm! with { DeviceDma = "x" } }));
        Assert.Equal([new GateStep.Obstacle("m-1", "device-dma", "x")], Decide(granted with { Vmm = granted.Vmm! with { DeviceDma = "x" } }));
        Assert.Equal([new GateStep.Obstacle("m-1", "busy-userfaultfd", "busy-userfaultfd")], Decide(loaded with { Verified = false, Failure = "busy-userfaultfd" }));
    }

    [Fact]
    public void DeviceDma_OnTheOwner_StopsNoGuestButTheFirstStartOfOneWithPoison()
    {
        var running = Source(state: VmmStates.Running);
        Assert.Empty(Decide(running with { Vmm = running.Vmm! with { DeviceDma = "x" } }));
        var cold = Source(record: new GateRecord("vm-1"), state: VmmStates.Held);
        cold = cold with { Vmm = cold.Vmm! with { DeviceDma = "x" } };
        Assert.Equal([new GateStep.TakeRight(Epoch, null)], Decide(cold));
        Assert.DoesNotContain(Decide(cold with { Desired = cold.Desired with { Pages = [new PageKey(5, 12)] } }), IsTakeRight);
    }

    [Fact]
    public void WithoutBarrier_InAMigration_IsAnObstacle()
    {
        var view = Source(Preparing(), new GateRecord("vm-1"), null);

        Assert.Equal("vmm-without-barrier", Assert.IsType<GateStep.Obstacle>(Assert.Single(Decide(view with { Vmm = view.Vmm! with { HasBarrier = false } }))).Code);
    }

    private static readonly GateRecord Held = new("vm-1", Epoch, 0, Memory, Vmm);

    private static IReadOnlyList<GateStep> Decide(GateView view) => GateRules.Decide(view);

    private static bool IsTakeRight(GateStep step) => step is GateStep.TakeRight;

    private static GateView Source(DesiredMigration? migration = null, GateRecord? record = null, string? state = null, string? stream = null, long epoch = Epoch, bool latched = true) =>
        new("host-a", Desired("host-a", epoch, migration), record ?? Held, new VmmView(Vmm, Memory, null, true, state, latched, stream), true, true, false);

    private static GateView TargetView(string state) =>
        new("host-b", Desired("host-a", Epoch, Switching()), new GateRecord("vm-1"), new VmmView(Vmm, Memory, "m-1", true, state, false, null), true, false, false);

    private static GateView Granted()
    {
        var permit = new Permit("m-1", Epoch + 1, 150, VmmInstanceText.Of(Vmm.BootId, Vmm.Pid, Vmm.StartTime));
        var migration = new DesiredMigration("m-1", MigrationStates.Granted, "host-a", "host-b", new VmAttach("handoff"), false, permit);
        return new GateView(
            "host-b", Desired("host-b", Epoch + 1, migration), new GateRecord("vm-1"),
            new VmmView(Vmm, Memory, "m-1", true, VmmStates.Loaded, false, null), true, false, true);
    }

    private static DesiredMigration Switching() => new("m-1", MigrationStates.Switching, "host-a", "host-b", new VmAttach("handoff"), false, null);

    private static DesiredMigration Preparing() => Switching() with { State = MigrationStates.Preparing };

    private static DesiredVm Desired(string owner, long epoch, DesiredMigration? migration) =>
        new("vm-1", owner, [new MemoryRegion("0x0", 1 << 26, 4096)], new VmAttach("handoff"), Memory, 150, epoch,
            PoisonDigest.Compute("vm-1", Memory, []), [], migration);
}
