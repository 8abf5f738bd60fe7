namespace Fleet.Api.Tests.Model;

public enum GateStepKind
{
    Progress,
    Create,
    Strike,
    Switchover,
    Seal,
    Ack,
    Race,
    Lifted,
    Abort,
    Renounce,
    Complete,
    Expire,
    Claim,
    Add,
    Clear,
    Replay,
    Park,
    Reset,
    Attest,
    Rebuild,
    Restore,
    State,
    Fence,
    Release,
}

/// <param name="Host">0 to 2.</param>
/// <param name="Number">0 to 3, as a frame.</param>
/// <param name="Variant">0 to 5; what it chooses depends on the kind.</param>
public sealed record GateStep(GateStepKind Kind, int Host, int Number, int Variant);
