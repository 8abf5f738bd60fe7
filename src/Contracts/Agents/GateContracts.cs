using System.Globalization;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;

namespace Fleet.Contracts.Agents;

/// <summary>The active migration of a VM, as the agents of its source and target see it in the desired state.</summary>
/// <param name="State"><c>preparing</c>, <c>switching</c> or <c>granted</c>.</param>
/// <param name="TargetHost">Null while the VM is being parked.</param>
/// <param name="Attach">The target's; null while the VM is being parked.</param>
/// <param name="ReturnWanted">The target is asked to renounce.</param>
/// <param name="Permit">Once granted.</param>
public sealed record DesiredMigration(
    string Id, string State, string? SourceHost, string? TargetHost, VmAttach? Attach, bool ReturnWanted, Permit? Permit);

/// <summary>
/// The target's acknowledgement: after the load ended, armed and verified in this VMM process now. Never spooled: it counts only
/// while its incarnation is the present one, and a memory fault of the target that is reported after it voids it.
/// </summary>
/// <param name="VmmInstance">As <see cref="VmmInstanceText"/> forms it.</param>
/// <param name="Generation">Of the set that was armed.</param>
/// <param name="Digest"><see cref="PoisonDigest"/> of that set.</param>
/// <param name="Unservable">Pages that this VMM cannot serve, known or not: holes the stream left, markers, hardware poison.</param>
public sealed record GateAck(
    string Vm, string Migration, string VmmInstance, long MemoryInstance, long Generation, string Digest, IReadOnlyList<PageKey> Unservable);

/// <summary>Why the target cannot stage the VM; turned into reasons of the migration. Not spooled.</summary>
public sealed record GateObstacle(string Vm, string Migration, string Code, string? Detail);

/// <summary>Values of <see cref="VmStatus.Reason"/> that the gate understands.</summary>
public static class GateStatus
{
    /// <summary>On an incoming VMM, with state <c>pending</c>: attached and the set known, to be armed once the load has ended.</summary>
    public const string Staged = "staged";

    /// <summary>
    /// With state <c>failed</c>: something reaches the guest's memory past the VMM's page tables. Every page may carry its marker all the
    /// same, but the set is not enforced; no acknowledgement is given and no permit used.
    /// </summary>
    public const string DeviceDma = "unenforceable:device-dma";
}

/// <summary>One life of a VMM process as text: <c>bootId:pid:startTime</c>.</summary>
public static class VmmInstanceText
{
    private const int Longest = 128;

    public static string Of(string bootId, int pid, long startTime) => FormattableString.Invariant($"{bootId}:{pid}:{startTime}");

    /// <summary>Whether the text has that form, in at most 128 characters.</summary>
    public static bool IsValid(string? text) =>
        text?.Length <= Longest && text.Split(':') is [{ Length: > 0 } bootId, var pid, var startTime]
        && !bootId.Any(char.IsControl)
        && int.TryParse(pid, NumberStyles.None, CultureInfo.InvariantCulture, out _)
        && long.TryParse(startTime, NumberStyles.None, CultureInfo.InvariantCulture, out _);
}

/// <summary>
/// Body of POST /v1/hosts/{host}/statement, after the control plane announced a new store epoch (restore from backup): what this
/// agent holds, of every VM it knows. With it the agent has promised, durably, to refuse older store epochs. Repeating it changes nothing.
/// </summary>
/// <param name="StoreEpoch">As the claim answered.</param>
/// <param name="Spool">From where its reports go on: what the control plane answered before it was put back is in this statement.</param>
public sealed record StatementRequest(long Incarnation, long StoreEpoch, IReadOnlyList<VmStatement> Vms, SpoolPosition? Spool = null);

/// <summary>What a host holds of one VM.</summary>
/// <param name="MemoryInstance">The newest that this agent knows.</param>
/// <param name="Right">Highest epoch under which a guest was allowed here; null when never.</param>
/// <param name="Closed">Highest epoch given up here, the promise included; null when never.</param>
/// <param name="VmmInstance">That of the right.</param>
/// <param name="Live">The right is above what was given up, and its VMM process lives.</param>
/// <param name="Pages">Every page that this agent was to arm, armed, reported or cannot serve.</param>
/// <param name="RightMemoryInstance">Memory instance of the right; null without one.</param>
/// <param name="Sealed">The right was given up by a seal.</param>
/// <param name="SealedTo">VMM instance to which the stream of that seal ended; null where it was for a park.</param>
/// <param name="Unguarded">A VMM that takes no part in the barrier lives here: its guest runs without any right.</param>
/// <param name="Memory">Layout as last known; null when it is not known any more.</param>
/// <param name="Attach">This host's, as last known; null when it is not known any more.</param>
public sealed record VmStatement(
    string Vm,
    long MemoryInstance,
    long? Right,
    long? Closed,
    string? VmmInstance,
    bool Live,
    IReadOnlyList<PageKey> Pages,
    long? RightMemoryInstance = null,
    bool Sealed = false,
    string? SealedTo = null,
    bool Unguarded = false,
    IReadOnlyList<MemoryRegion>? Memory = null,
    VmAttach? Attach = null);

/// <param name="StoreEpoch">In which the statement counts.</param>
public sealed record StatementResult(long StoreEpoch);
