using Fleet.Contracts.Vms;

namespace Fleet.Contracts.Migrations;

/// <summary>Body of PUT /v1/migrations/{id}.</summary>
/// <param name="Attach">How the target's agent reaches the new VMM.</param>
public sealed record MigrationRequest(string Vm, string TargetHost, VmAttach Attach);

/// <param name="SourceHost">Owner when the migration was made; null where the VM was parked.</param>
/// <param name="TargetHost">Null for the migration that a park makes.</param>
/// <param name="State">
/// <c>preparing</c>, <c>ready</c> (preparing, and the target staged the present generation), <c>switching</c>, <c>granted</c>,
/// <c>completed</c>, <c>aborted</c> or <c>failed</c>.
/// </param>
/// <param name="Generation">The VM's generation as this migration knows it.</param>
/// <param name="Reasons">Why it cannot go on, or failed.</param>
/// <param name="Permit">Once granted.</param>
/// <param name="ReturnWanted">Aborted after the grant: the target is asked to renounce.</param>
public sealed record MigrationResource(
    string Id,
    string Vm,
    string? SourceHost,
    string? TargetHost,
    VmAttach? Attach,
    string State,
    long Generation,
    IReadOnlyList<GateReason> Reasons,
    Permit? Permit,
    bool ReturnWanted,
    DateTimeOffset ExpiresAt);

/// <summary>The right to resume a VM on the target. It is the target's agent that resumes the guest, not whoever reads this.</summary>
/// <param name="Epoch">Placement epoch of the move; the fencing token.</param>
/// <param name="Generation">Generation of the poisoned set that the target acknowledged.</param>
/// <param name="VmmInstance">The one VMM process that it is for.</param>
public sealed record Permit(string Migration, long Epoch, long Generation, string VmmInstance);

/// <param name="Code">Stable, such as <c>target-drained</c>, <c>capability</c>, <c>layout</c>, <c>busy-userfaultfd</c>, <c>device-dma</c>, <c>seal-missing</c>.</param>
public sealed record GateReason(string Code, string? Detail = null);

/// <summary>Body of POST /v1/migrations/{id}/switchover.</summary>
/// <param name="SourceFenced">Asserts that the source is dead and has not run since the stream ended; needs migrations:fence and a reason.</param>
public sealed record SwitchoverRequest(bool SourceFenced = false, string? Reason = null);

/// <summary>Body of POST /v1/migrations/{id}/abort.</summary>
/// <param name="TargetFenced">Asserts that the target is dead and never lifted its barrier; needs migrations:fence.</param>
public sealed record AbortRequest(string Reason, bool TargetFenced = false);

/// <summary>Body of POST /v1/vms/{vm}/reset: a cold start with fresh RAM. Needs the right to clear.</summary>
public sealed record ResetRequest(string Reason);

/// <summary>Body of POST /v1/vms/{vm}/park: the VM's state is saved and it has no host until a migration restores it.</summary>
public sealed record ParkRequest(string Reason, bool SourceFenced = false);

/// <summary>Body of POST /v1/vms/{vm}/rebuild: owner dead and no usable RAM. New owner, epoch and memory instance, empty set.</summary>
public sealed record RebuildRequest(string Host, string Reason);

public static class MigrationStates
{
    public const string Preparing = "preparing";
    public const string Ready = "ready";
    public const string Switching = "switching";
    public const string Granted = "granted";
    public const string Completed = "completed";
    public const string Aborted = "aborted";
    public const string Failed = "failed";
}
