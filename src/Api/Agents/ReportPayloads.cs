using System.Text.Json;
using System.Text.Json.Serialization;
using Fleet.Contracts.Agents;
using Fleet.Data.Entities;

namespace Fleet.Api.Agents;

/// <summary>Payload of <see cref="ChangeKinds.ReportsApplied"/>.</summary>
internal sealed record ReportsPayload(string SpoolId, long From, long To, int Poison, int Hits, IReadOnlyList<RejectedReport> Rejected, int Faults)
{
    public string ToJson() => JsonSerializer.Serialize(this, ReportsPayloadJson.Default.ReportsPayload);
}

/// <summary>Payload of <see cref="ChangeKinds.MarkersLost"/>.</summary>
/// <param name="Frame">The lowest frame.</param>
/// <param name="Frames">Each as often as it was lost.</param>
/// <param name="ConfirmedAt">By the host's clock: the last look that saw the markers.</param>
/// <param name="FoundAt">By the host's clock: the look that missed them; the guest may have read zeros from the one to the other.</param>
internal sealed record MarkersLostPayload(
    string Host, long MemoryInstance, long PlacementEpoch, long Frame, long Frames, DateTimeOffset ConfirmedAt, DateTimeOffset FoundAt)
{
    public static MarkersLostPayload Of(string host, AgentReport report) =>
        new(host, report.MemoryInstance, report.PlacementEpoch!.Value, report.Frame, report.Count, report.FirstAt, report.LastAt);

    public string ToJson() => JsonSerializer.Serialize(this, ReportsPayloadJson.Default.MarkersLostPayload);
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(ReportsPayload))]
[JsonSerializable(typeof(MarkersLostPayload))]
internal sealed partial class ReportsPayloadJson : JsonSerializerContext;
