using System.Text.Json.Serialization;
using Fleet.Contracts;

namespace Fleet.Api.Restore;

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(StoreEpochChange))]
[JsonSerializable(typeof(StatementPayload))]
[JsonSerializable(typeof(QuarantineEndPayload))]
[JsonSerializable(typeof(IReadOnlyList<PageKey>))]
internal sealed partial class RestoreJson : JsonSerializerContext;

/// <summary>Payload of <see cref="Data.Entities.ChangeKinds.HostStated"/>.</summary>
/// <param name="Pages">Pages that were new to the sets.</param>
internal sealed record StatementPayload(long StoreEpoch, int Vms, int Pages);

/// <summary>Payload of <see cref="Data.Entities.ChangeKinds.QuarantineEnded"/> and <see cref="Data.Entities.ChangeKinds.VmReleased"/>.</summary>
internal sealed record QuarantineEndPayload(string? OwnerBefore, string? Owner, long MemoryInstance);
