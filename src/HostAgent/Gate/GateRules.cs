using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Migrations;

namespace Fleet.HostAgent.Gate;

/// <summary>The agent's part of the migration gate (GATE.md), as a pure function. Names in comments are GATE's.</summary>
public static class GateRules
{
    public static IReadOnlyList<GateStep> Decide(GateView view)
    {
        if (view.Desired.Quarantined || view.IsOlder)
        {
            // Restore from backup: no right, no seal, no fence: a guest that holds a right runs on, and one that holds none stays latched.
            return [];
        }

        var steps = new List<GateStep>();
        if (NeedsSpool(view.Record))
        {
            steps.Add(new GateStep.SpoolAgain());
        }

        if (Obstacle(view) is { } obstacle)
        {
            steps.Add(obstacle);
        }

        if (Change(view) is { } change)
        {
            steps.Add(change);
            return steps;
        }

        if (view.Vmm is { HasBarrier: true, State: { } state } vmm)
        {
            steps.AddRange(Barrier(view, vmm, state));
        }

        return steps;
    }

    // What changes the record; the order does not matter, at most one condition holds.
    private static GateStep? Change(GateView view) =>
        Fence(view) ?? Renounce(view) ?? Seal(view) ?? Lift(view) ?? Return(view) ?? ColdStart(view) ?? Gone(view);

    // "An agent that sees owner != me and epoch > right pauses the guest and sets closed := right."
    private static GateStep? Fence(GateView view) =>
        view.Desired.Owner != view.Host && view.Desired.PlacementEpoch > view.Record.Right && view.Record.IsOpen ? new GateStep.Fence() : null;

    // "On wantReturn, or by itself when permit.vmmInstance is gone; only if right < epoch."
    private static GateStep? Renounce(GateView view) =>
        Granted(view) is { } permit && (view.Desired.Migration!.ReturnWanted || !view.VmmOfPermitLives)
            ? new GateStep.Renounce(permit.Migration, permit.Epoch)
            : null;

    // "permit.epoch > right and > closed; permit.vmmInstance is this process; known generation >= the ack's; all pages verified now."
    private static GateStep? Lift(GateView view) =>
        Granted(view) is { } permit && view.Vmm is { State: VmmStates.Loaded or VmmStates.Held, DeviceDma: null } vmm && vmm.Instance == permit.VmmInstance
        && view.Desired.Generation >= permit.Generation && view.Verified && !view.Desired.Migration!.ReturnWanted
            ? new GateStep.TakeRight(permit.Epoch, permit.Migration)
            : null;

    // "Acts only if request.epoch = right > closed, the VMM instance is right's, the guest is paused (verified and latched), and this
    // VMM process attests that its stream to target instance X ended and no guest instruction ran since."
    private static GateStep? Seal(GateView view) =>
        view.Desired.Migration is { State: MigrationStates.Switching } migration
        && migration.SourceHost == view.Host && view.Desired.Owner == view.Host
        && view.Desired.PlacementEpoch == view.Record.Right && view.Record.IsOpen
        && view.Vmm is { State: VmmStates.Held, IsLatched: true, EventsStored: true } vmm && vmm.Identity == view.Record.Vmm
        && (vmm.StreamTarget is not null || migration.TargetHost is null)
            ? new GateStep.Seal(migration.Id, view.Record.Right, migration.TargetHost is null ? null : vmm.StreamTarget)
            : null;

    // "Desired shows owner = me, epoch > right and > closed, VMM instance = right's, arms verified at that generation."
    private static GateStep? Return(GateView view) =>
        IsMine(view) && view.Vmm is { State: VmmStates.Held or VmmStates.Running } vmm && vmm.Identity == view.Record.Vmm
        && vmm.MemoryInstance == view.Desired.MemoryInstance && view.Verified && Granted(view) is null
        && view.Desired.Migration is not { State: MigrationStates.Switching }
            ? new GateStep.TakeRight(view.Desired.PlacementEpoch, null)
            : null;

    // A VM that nobody ever ran: its epoch is still the one that its memory instance began with, no VMM here had a right in it, and this
    // one did not run when it was first seen (an agent that lost its state folder must treat a running VMM as sealed). A device matters
    // where there is a page that it must not read: a guest with devices may start, one with poisoned pages and devices may not.
    private static GateStep? ColdStart(GateView view) =>
        IsMine(view) && view.Desired.PlacementEpoch == view.Desired.MemoryInstance && view.Record.MemoryInstance != view.Desired.MemoryInstance
        && view.Vmm is { State: VmmStates.Held, IncomingFor: null, MayHaveRun: false } vmm && vmm.MemoryInstance == view.Desired.MemoryInstance
        && view.Verified && view.Desired.Migration is null && (vmm.DeviceDma is null || view.Desired.Pages.Count == 0)
            ? new GateStep.TakeRight(view.Desired.PlacementEpoch, null)
            : null;

    private static GateStep? Gone(GateView view) =>
        view.Desired.ResetWanted && view.Desired.Owner == view.Host && !view.VmmOfRecordLives && view.Vmm is null
            ? new GateStep.AttestGone(view.Desired.MemoryInstance)
            : null;

    private static IEnumerable<GateStep> Barrier(GateView view, VmmView vmm, string state)
    {
        var mayRun = view.Record.IsOpen && vmm.Identity == view.Record.Vmm && view.Verified && !IsBeingSealed(view);
        if (!mayRun && state is VmmStates.Running or VmmStates.Held)
        {
            // Also to a VMM that is held already: only a latch keeps it so.
            yield return new GateStep.Hold();
        }
        else if (mayRun && state is VmmStates.Loaded or VmmStates.Held && vmm.StreamTarget is null)
        {
            yield return new GateStep.Run();
        }

        if (view.Desired.Migration is { State: MigrationStates.Switching } migration && migration.TargetHost == view.Host
            && vmm.IncomingFor == migration.Id && state == VmmStates.Loaded && view.Verified && vmm.DeviceDma is null
            && vmm.MemoryInstance == view.Desired.MemoryInstance && view.Record.Vmm != vmm.Identity)
        {
            yield return new GateStep.Acknowledge(migration.Id);
        }
    }

    // One at a time: what is behind it is told when it is gone.
    private static GateStep.Obstacle? Obstacle(GateView view) =>
        view is not { Desired.Migration: { } migration, Vmm: { } vmm } ? null
        : !vmm.HasBarrier ? new GateStep.Obstacle(migration.Id, "vmm-without-barrier", $"the VMM on {view.Host} does not take part in the barrier")
        : migration.TargetHost != view.Host ? null
        : vmm.DeviceDma is { } device ? new GateStep.Obstacle(migration.Id, "device-dma", device)
        : view.Failure is { } failure ? new GateStep.Obstacle(migration.Id, failure == "busy-userfaultfd" ? failure : "not-armed", failure)
        : null;

    private static bool IsMine(GateView view) =>
        view.Desired.Owner == view.Host && view.Desired.PlacementEpoch > view.Record.Right && view.Desired.PlacementEpoch > view.Record.Closed;

    private static bool IsBeingSealed(GateView view) =>
        view.Desired.Migration is { State: MigrationStates.Switching } migration && migration.SourceHost == view.Host;

    // The permit, where it is for this host and neither used nor given up.
    private static Permit? Granted(GateView view) =>
        view.Desired.Migration is { State: MigrationStates.Granted, Permit: { } permit } migration
        && migration.TargetHost == view.Host && view.Desired.Owner == view.Host && view.Desired.PlacementEpoch == permit.Epoch
        && permit.Epoch > view.Record.Right && permit.Epoch > view.Record.Closed
            ? permit
            : null;

    private static bool NeedsSpool(GateRecord record) =>
        record.Sealed is { Spooled: false } || record.Lifted is not null || record.Renounced is not null;
}
