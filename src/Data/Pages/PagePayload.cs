using System.Text.Json;
using System.Text.Json.Serialization;
using Fleet.Contracts;

namespace Fleet.Data.Pages;

/// <summary>Payload of every change to a poisoned set: enough to build a delta, and to undo it for an older view.</summary>
/// <param name="From">Generation before the change.</param>
/// <param name="Added">Pages in the set after it that were not before.</param>
/// <param name="Cleared">Pages in the set before it that are not after, absorbed ones included.</param>
public sealed record PagePayload(long MemoryInstance, long From, IReadOnlyList<PageKey> Added, IReadOnlyList<ClearedPage> Cleared)
{
    public string ToJson() => JsonSerializer.Serialize(this, PayloadJson.Default.PagePayload);

    public static PagePayload Parse(string json) =>
        JsonSerializer.Deserialize(json, PayloadJson.Default.PagePayload) ?? throw new JsonException("An empty page payload.");
}

/// <summary>A page as it was when it left the set.</summary>
public sealed record ClearedPage(
    long Frame,
    int Shift,
    string Class,
    string Source,
    string? FirstHost,
    long DetectedAt,
    long AddedGeneration);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(PagePayload))]
internal sealed partial class PayloadJson : JsonSerializerContext;
