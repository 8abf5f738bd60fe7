namespace Fleet.Data.Entities;

/// <summary>One row of the change log: push, change feed and audit trail are reads of it.</summary>
public sealed class ChangeRow
{
    public long Revision { get; set; }

    /// <summary>One of <see cref="ChangeKinds"/>.</summary>
    public required string Kind { get; set; }

    /// <summary>Such as <c>vms/vm-1</c> or <c>hosts/host-a</c>.</summary>
    public required string Resource { get; set; }

    /// <summary>Credential id, or <c>system</c>.</summary>
    public required string Actor { get; set; }

    public string? Reason { get; set; }

    public string? Payload { get; set; }

    public long At { get; set; }
}

public static class ChangeKinds
{
    public const string VmCreated = "vm.created";
    public const string VmUpdated = "vm.updated";
    public const string VmDeleted = "vm.deleted";
    public const string PagesAdded = "pages.added";
    public const string PagesCleared = "pages.cleared";
    public const string PagesReportedAgain = "pages.reported-again";
    public const string MarkersLost = "pages.marker-lost";
    public const string LatePoison = "pages.late-poison";
    public const string VmResetWanted = "vm.reset-wanted";
    public const string VmReset = "vm.reset";
    public const string VmRebuilt = "vm.rebuilt";
    public const string MigrationCreated = "migration.created";
    public const string MigrationSwitching = "migration.switching";
    public const string MigrationFenced = "migration.source-fenced";
    public const string MigrationSealed = "migration.sealed";
    public const string MigrationAcknowledged = "migration.acknowledged";
    public const string MigrationAckVoided = "migration.ack-voided";
    public const string MigrationObstacles = "migration.obstacles";
    public const string MigrationGranted = "migration.granted";
    public const string MigrationReturnWanted = "migration.return-wanted";
    public const string MigrationLifted = "migration.lifted";
    public const string MigrationCompleted = "migration.completed";
    public const string MigrationAborted = "migration.aborted";
    public const string MigrationFailed = "migration.failed";
    public const string StoreRestored = "store.restored";
    public const string QuarantineEnded = "vm.quarantine-ended";
    public const string QuarantineKept = "vm.quarantine-kept";
    public const string VmReleased = "vm.released";
    public const string PagesNotTaken = "pages.not-taken";
    public const string HostStated = "host.stated";
    public const string HostFenced = "host.fenced";
    public const string HostUncorrected = "host.uncorrected-error";
    public const string HostFault = "host.memory-fault";
    public const string HostCreated = "host.created";
    public const string HostLabelled = "host.labelled";
    public const string HostDrained = "host.drained";
    public const string HostUndrained = "host.undrained";
    public const string HostClaimed = "host.claimed";
    public const string HostContested = "host.contested";
    public const string HostContestEnded = "host.contest-ended";
    public const string HostState = "host.state";
    public const string ReportsApplied = "reports.applied";
    public const string JoinTokenCreated = "join-token.created";
    public const string AgentEnrolled = "agent.enrolled";
    public const string JoinTokenRevoked = "join-token.revoked";
    public const string CredentialCreated = "credential.created";
    public const string Compacted = "changes.compacted";
    public const string CredentialRotated = "credential.rotated";
    public const string CredentialRevoked = "credential.revoked";
}

public static class ChangeResources
{
    public const string Store = "store";

    public static string Vm(string vm) => $"vms/{vm}";

    public static string Migration(string id) => $"migrations/{id}";

    public static string Host(string host) => $"hosts/{host}";

    public static string JoinToken(string id) => $"join-tokens/{id}";

    public static string Credential(string id) => $"credentials/{id}";
}
