using System.Text.Json.Serialization;
using Fleet.Linux.Processes;

namespace Fleet.HostAgent.Gate;

/// <summary>
/// What this host may and may not do with a VM's guest, on disk before anything depends on it. A guest may run iff
/// <see cref="IsOpen"/> in that VMM process, with every page of the newest known set verified.
/// </summary>
/// <param name="Right">Highest epoch under which a guest was allowed here; 0 when never.</param>
/// <param name="Closed">Highest epoch given up here (sealed, renounced, fenced); 0 when never.</param>
/// <param name="MemoryInstance">Of the right.</param>
/// <param name="Vmm">The VMM process of the right; null without one.</param>
/// <param name="Sealed">The last seal; kept so that a crash after it does not lose it.</param>
/// <param name="Lifted">Migration whose permit opened the barrier, until its <c>lifted</c> report is spooled.</param>
/// <param name="Renounced">Migration whose permit was given up, until its report is spooled.</param>
public sealed record GateRecord(
    string Vm,
    long Right = 0,
    long Closed = 0,
    long MemoryInstance = 0,
    ProcessIdentity? Vmm = null,
    SealRecord? Sealed = null,
    string? Lifted = null,
    string? Renounced = null)
{
    [JsonIgnore]
    public bool IsOpen => Right > Closed;
}

/// <param name="TargetVmmInstance">Where the stream ended; null for a park.</param>
/// <param name="Spooled">Its report is in the spool.</param>
public sealed record SealRecord(string Migration, long Epoch, string? TargetVmmInstance, bool Spooled);

[JsonSerializable(typeof(GateRecord))]
internal sealed partial class GateJson : JsonSerializerContext;
