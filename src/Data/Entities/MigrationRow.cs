using System.Linq.Expressions;
using Fleet.Contracts.Migrations;

namespace Fleet.Data.Entities;

/// <summary>One attempt to move a VM; what the gate decides from is all here and in the VM's row.</summary>
public sealed class MigrationRow
{
    /// <summary>Of an active migration; the unique index says the same.</summary>
    public static readonly Expression<Func<MigrationRow, bool>> Active = row =>
        row.State == MigrationStates.Preparing || row.State == MigrationStates.Switching || row.State == MigrationStates.Granted;

    public required string Id { get; set; }

    public required string Vm { get; set; }

    /// <summary>Owner when the migration was made; null where the VM was parked.</summary>
    public string? SourceHost { get; set; }

    /// <summary>Null for a park.</summary>
    public string? TargetHost { get; set; }

    /// <summary>How the target's agent reaches the new VMM; null for a park.</summary>
    public string? Attach { get; set; }

    /// <summary>The VM's attachment before the grant, for the source while it is granted and after a return.</summary>
    public string? SourceAttach { get; set; }

    /// <summary>One of <see cref="MigrationStates"/>, but never the derived <c>ready</c>.</summary>
    public required string State { get; set; }

    /// <summary>The VM's generation when this was last decided upon.</summary>
    public long Generation { get; set; }

    /// <summary>Placement epoch that the source sealed; null before its seal.</summary>
    public long? SealEpoch { get; set; }

    /// <summary>VMM instance to which the source's stream ended; null for a park.</summary>
    public string? SealTargetInstance { get; set; }

    /// <summary>The target's newest acknowledgement as JSON; null before it, and when voided.</summary>
    public string? Ack { get; set; }

    /// <summary>The override: the source is dead and has not run since the stream ended.</summary>
    public bool SourceFenced { get; set; }

    public string? FenceReason { get; set; }

    public bool ReturnWanted { get; set; }

    public bool Lifted { get; set; }

    public long? PermitEpoch { get; set; }

    public long? PermitGeneration { get; set; }

    public string? PermitVmmInstance { get; set; }

    /// <summary>Unix ms; does not count once granted.</summary>
    public long ExpiresAt { get; set; }

    /// <summary>Obstacles while it is active, the reasons of its end afterwards; JSON.</summary>
    public required string Reasons { get; set; }

    public long CreatedAt { get; set; }

    public long Version { get; set; }

    public bool IsActive => State is MigrationStates.Preparing or MigrationStates.Switching or MigrationStates.Granted;

    /// <summary>From here until the end nothing else may change the VM.</summary>
    public bool IsBinding => State is MigrationStates.Switching or MigrationStates.Granted;
}
