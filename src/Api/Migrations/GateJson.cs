using System.Text.Json;
using System.Text.Json.Serialization;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;

namespace Fleet.Api.Migrations;

/// <summary>An acknowledgement as it is stored: what the target said, and which life of its agent said it.</summary>
internal sealed record StoredAck(
    string VmmInstance, long Incarnation, long MemoryInstance, long Generation, string Digest, IReadOnlyList<PageKey> Unservable)
{
    public static StoredAck From(GateAck ack, long incarnation) =>
        new(ack.VmmInstance, incarnation, ack.MemoryInstance, ack.Generation, ack.Digest, ack.Unservable);

    /// <summary>Null when there is none.</summary>
    public static StoredAck? Of(MigrationRow migration) =>
        migration.Ack is null ? null : JsonSerializer.Deserialize(migration.Ack, GateJson.Default.StoredAck);

    public string ToJson() => JsonSerializer.Serialize(this, GateJson.Default.StoredAck);
}

/// <summary>A memory error of a host that does not belong to the VM's set; payload of <see cref="ChangeKinds.HostFault"/>.</summary>
internal sealed record HostFault(string Vm, long MemoryInstance, long Frame, int Shift, string Origin)
{
    public string ToJson() => JsonSerializer.Serialize(this, GateJson.Default.HostFault);
}

/// <summary>The VMM instance to which the source's stream ended; payload of <see cref="ChangeKinds.MigrationSealed"/>.</summary>
internal sealed record SealPayload(string? TargetVmmInstance)
{
    public string ToJson() => JsonSerializer.Serialize(this, GateJson.Default.SealPayload);
}

/// <summary>Columns of JSON in a migration's row.</summary>
internal static class MigrationColumns
{
    public static IReadOnlyList<GateReason> ReasonsOf(MigrationRow row) => JsonSerializer.Deserialize(row.Reasons, GateJson.Default.IReadOnlyListGateReason)!;

    public static string ToJson(IReadOnlyList<GateReason> reasons) => JsonSerializer.Serialize(reasons, GateJson.Default.IReadOnlyListGateReason);

    public static VmAttach? AttachOf(string? json) => json is null ? null : JsonSerializer.Deserialize(json, FleetJson.Default.VmAttach);

    public static Permit? PermitOf(MigrationRow row) =>
        row is { State: MigrationStates.Granted or MigrationStates.Completed, PermitEpoch: { } epoch, PermitGeneration: { } generation, PermitVmmInstance: { } instance }
            ? new Permit(row.Id, epoch, generation, instance)
            : null;
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(StoredAck))]
[JsonSerializable(typeof(HostFault))]
[JsonSerializable(typeof(SealPayload))]
[JsonSerializable(typeof(Permit))]
[JsonSerializable(typeof(IReadOnlyList<GateReason>))]
internal sealed partial class GateJson : JsonSerializerContext;
