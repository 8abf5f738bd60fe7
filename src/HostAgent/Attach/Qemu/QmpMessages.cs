using System.Text.Json;
using System.Text.Json.Serialization;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>A command of the QEMU Machine Protocol (docs/interop/qmp-spec in QEMU): one JSON object on a line.</summary>
/// <param name="Id">Comes back with the answer.</param>
public sealed record QmpCommand(
    [property: JsonPropertyName("execute")] string Execute,
    [property: JsonPropertyName("arguments"), JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] QmpArguments? Arguments,
    [property: JsonPropertyName("id")] long Id);

/// <summary>The arguments of the only command with arguments that the agent sends: human-monitor-command.</summary>
public sealed record QmpArguments([property: JsonPropertyName("command-line")] string CommandLine);

/// <summary>Any line from QEMU: the greeting, an answer (with <c>return</c> or <c>error</c>), or an event.</summary>
public sealed record QmpLine(
    [property: JsonPropertyName("QMP")] JsonElement? Greeting,
    [property: JsonPropertyName("return")] JsonElement? Return,
    [property: JsonPropertyName("error")] QmpError? Error,
    [property: JsonPropertyName("id")] JsonElement? Id,
    [property: JsonPropertyName("event")] string? Event,
    [property: JsonPropertyName("data")] JsonElement? Data);

public sealed record QmpError([property: JsonPropertyName("class")] string? Class, [property: JsonPropertyName("desc")] string? Description);

/// <summary>Answer of query-memory-size-summary.</summary>
/// <param name="Base">RAM that the machine was started with, in bytes.</param>
/// <param name="Plugged">RAM in memory devices, in bytes.</param>
public sealed record QmpMemorySize([property: JsonPropertyName("base-memory")] long Base, [property: JsonPropertyName("plugged-memory")] long Plugged);

/// <summary>Data of the event MEMORY_FAILURE. It has no address.</summary>
/// <param name="Recipient"><c>guest</c> or <c>hypervisor</c>.</param>
/// <param name="Action"><c>inject</c>, <c>ignore</c>, <c>fatal</c> or <c>reset</c>.</param>
public sealed record QmpMemoryFailure([property: JsonPropertyName("recipient")] string? Recipient, [property: JsonPropertyName("action")] string? Action);

[JsonSerializable(typeof(QmpCommand))]
[JsonSerializable(typeof(QmpLine))]
[JsonSerializable(typeof(QmpMemorySize))]
[JsonSerializable(typeof(QmpMemoryFailure))]
internal sealed partial class QmpJson : JsonSerializerContext;
