namespace Fleet.Api.Tests.Simulation;

public enum FleetStepKind
{
    /// <summary>Every agent does all it has to, and the orchestrator what comes next.</summary>
    Progress,
    Tick,
    Look,
    LookAndDie,
    Fetch,
    FetchForLater,
    AdoptDelayed,
    Send,
    Replay,
    Crash,
    StartAgent,
    KillVmm,
    StartVmm,
    Power,
    Write,
    Strike,
    Add,
    Clear,
    Create,
    Switchover,
    Pause,
    Stream,
    Abort,
    Complete,
    Expire,
    Park,
    Reset,
    Rebuild,
    Backup,
    Restore,
}

/// <param name="Host">0 to 2.</param>
/// <param name="Variant">0 to 5; what it chooses depends on the kind.</param>
public sealed record FleetStep(FleetStepKind Kind, int Host, int Frame, int Variant);
