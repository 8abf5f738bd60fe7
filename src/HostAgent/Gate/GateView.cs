using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Linux.Processes;

namespace Fleet.HostAgent.Gate;

/// <summary>All that the gate's rules look at, taken at one moment.</summary>
/// <param name="Host">This host.</param>
/// <param name="Record">From disk.</param>
/// <param name="Vmm">The attached VMM; null when none is.</param>
/// <param name="Verified">The kernel confirmed every page of the desired set, and every hole the stream left, in that VMM just now.</param>
/// <param name="VmmOfRecordLives">The process of the record's right still runs.</param>
/// <param name="VmmOfPermitLives">The process that the migration's permit is for still runs.</param>
/// <param name="IsOlder"><paramref name="Desired"/> is of a store epoch before the one that this host has promised.</param>
/// <param name="Failure">Why pages could not be armed; null when that was not tried, or nothing failed.</param>
public sealed record GateView(
    string Host, DesiredVm Desired, GateRecord Record, VmmView? Vmm, bool Verified, bool VmmOfRecordLives, bool VmmOfPermitLives, bool IsOlder = false,
    string? Failure = null);

/// <param name="MemoryInstance">That the process was first attached for.</param>
/// <param name="IncomingFor">Migration for which it was started; null for a VMM that was not started to receive.</param>
/// <param name="State">One of <see cref="VmmStates"/>, as it said last on the present connection; null without a barrier or a connection.</param>
/// <param name="IsLatched">It was told to hold, and <paramref name="State"/> is from after that.</param>
/// <param name="MayHaveRun">Its guest ran already when it was first seen here.</param>
/// <param name="EventsStored">Every event that it had queued when it told its state is in the spool.</param>
/// <param name="StreamTarget">VMM instance to which its stream ended with no instruction run since.</param>
/// <param name="DeviceDma">What reaches its guest's memory past its page tables; null when nothing does.</param>
public sealed record VmmView(
    ProcessIdentity Identity, long MemoryInstance, string? IncomingFor, bool HasBarrier, string? State, bool IsLatched, string? StreamTarget, bool MayHaveRun = false,
    bool EventsStored = true, string? DeviceDma = null)
{
    public string Instance => VmmInstanceText.Of(Identity.BootId, Identity.Pid, Identity.StartTime);
}

/// <summary>What the gate has the agent do now. At most one change of the record in a pass; the next pass looks again.</summary>
public abstract record GateStep
{
    private GateStep()
    {
    }

    /// <summary>Owner is another host: stop the guest and give the right up.</summary>
    public sealed record Fence : GateStep;

    /// <summary>The guest must not run: latch the VMM.</summary>
    public sealed record Hold : GateStep;

    /// <summary>Take the right for the present epoch in this VMM, then run. <paramref name="Migration"/>: a permit, else a return or a cold start.</summary>
    public sealed record TakeRight(long Epoch, string? Migration) : GateStep;

    /// <summary>The right is held: let the guest run.</summary>
    public sealed record Run : GateStep;

    /// <summary>Sweep, close the barrier, spool the seal.</summary>
    public sealed record Seal(string Migration, long Epoch, string? TargetVmmInstance) : GateStep;

    /// <summary>A seal, a lift or a renunciation is on disk and not yet in the spool.</summary>
    public sealed record SpoolAgain : GateStep;

    public sealed record Acknowledge(string Migration) : GateStep;

    public sealed record Renounce(string Migration, long Epoch) : GateStep;

    /// <summary>No VMM holds the old RAM: the reset may go on.</summary>
    public sealed record AttestGone(long MemoryInstance) : GateStep;

    /// <summary>This host cannot play its part.</summary>
    public sealed record Obstacle(string Migration, string Code, string Detail) : GateStep;
}
