using System.Text.Json.Serialization;
using Fleet.Contracts.Handoff;
using Fleet.TinyVmm.Guest;

namespace Fleet.TinyVmm.Migration;

/// <summary>What is streamed, before the RAM. The target compares all of it with itself.</summary>
/// <param name="Version">Of the stream; always <see cref="CurrentVersion"/>.</param>
/// <param name="Vcpu">Kind of the vCPU: the state of one kind cannot be loaded into another.</param>
/// <param name="Program">SHA-256 of the guest's program, in hex: the vCPU's state refers to it.</param>
internal sealed record StreamHeader(int Version, string Vm, string Vcpu, string Program, IReadOnlyList<StreamRegion> Regions)
{
    public const int CurrentVersion = 1;
}

internal sealed record StreamRegion(string GuestPhysicalAddress, long Bytes);

/// <summary>After the RAM.</summary>
/// <param name="Undelivered">All frames that were not delivered, those of the records and those that became known later.</param>
/// <param name="Command">The vCPU's state: the command under way; null when the guest waits for one.</param>
internal sealed record StreamEnd(IReadOnlyList<HandoffFrames> Undelivered, StreamCommand? Command);

/// <summary>A <see cref="Vcpu.CarriedCommand"/> on the wire.</summary>
internal sealed record StreamCommand(GuestOperation Operation, ulong Address, ulong Bytes, uint Value, ulong Done, uint Partial);

/// <summary>The target's answer, to the header and to the end.</summary>
/// <param name="Instance">The target's VMM instance, when ok.</param>
/// <param name="Code">When not ok; see <see cref="StreamException"/>.</param>
internal sealed record StreamAnswer(bool Ok, string? Instance, string? Code = null, string? Error = null);

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    NumberHandling = JsonNumberHandling.Strict,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = false)]
[JsonSerializable(typeof(StreamHeader))]
[JsonSerializable(typeof(StreamEnd))]
[JsonSerializable(typeof(StreamAnswer))]
internal sealed partial class StreamJson : JsonSerializerContext;
