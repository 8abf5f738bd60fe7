using System.Text.Json.Serialization;

namespace Fleet.Contracts.Handoff;

/// <summary>Source-generated JSON of the handoff protocol; every message is one line.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    NumberHandling = JsonNumberHandling.Strict,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = false)]
[JsonSerializable(typeof(HandoffMessage))]
[JsonSerializable(typeof(VmmEvent))]
[JsonSerializable(typeof(AgentLine))]
[JsonSerializable(typeof(VmmState))]
[JsonSerializable(typeof(VmmZapped))]
public sealed partial class HandoffJson : JsonSerializerContext;
