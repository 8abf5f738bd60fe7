using System.Text.Json.Serialization;
using Fleet.Contracts.Handoff;

namespace Fleet.TinyVmm.Control;

/// <summary>One line to the control socket. Addresses and values are hex strings; which fields count depends on the op.</summary>
/// <param name="Op">
/// <c>status</c>, <c>pause</c>, <c>resume</c>; <c>write</c> (gpa, bytes, seed), <c>read</c> (gpa), <c>store</c> (gpa, value),
/// <c>checksum</c> (gpa, bytes): done by the guest; <c>memory-error</c> (gpa, shift, class); <c>discard</c> (gpa, bytes), <c>unmap</c> (gpa, bytes);
/// <c>migrate-out</c> (to): pauses the guest and streams it to another VMM.
/// </param>
/// <param name="Bytes">Length in bytes: a multiple of 4, of 4096 for a discard or unmap.</param>
/// <param name="To"><c>unix:/path</c>, or <c>tcp:127.0.0.1:port</c>.</param>
public sealed record ControlRequest(
    string? Op, string? Gpa = null, long? Bytes = null, uint? Seed = null, string? Value = null, int? Shift = null, string? Class = null, string? To = null);

/// <summary>The answer to a request; the only answer when it failed.</summary>
/// <param name="Code">
/// When not ok: <c>bad-json</c>, <c>unknown-op</c>, <c>bad-request</c>, <c>out-of-range</c>, <c>reserved</c>, <c>paused</c>,
/// <c>failed</c> (the guest has stopped for good), <c>timeout</c>, <c>host-error</c>, <c>held</c> (the agent's barrier is closed),
/// <c>migrating</c> (RAM is being streamed out); of a stream <c>stream-malformed</c>, <c>stream-torn</c>, <c>stream-wrong-vm</c>,
/// <c>stream-layout-mismatch</c>, <c>stream-vcpu-mismatch</c>, <c>stream-program-mismatch</c>, <c>stream-already-loaded</c>,
/// <c>stream-busy</c>, <c>stream-too-many-undelivered</c>, <c>stream-unreachable</c>, <c>stream-timeout</c>, <c>stream-memory</c>.
/// </param>
/// <param name="Error">For a person to read.</param>
public record ControlAnswer([property: JsonPropertyOrder(-1)] bool Ok, string? Code = null, string? Error = null);

/// <summary>The answer to a command that the guest carried out, with what it found.</summary>
/// <param name="Outcome"><c>done</c>, <c>data</c> or <c>machine-check</c>.</param>
/// <param name="Value">The dword read.</param>
/// <param name="Checksum">The checksum that the guest computed.</param>
/// <param name="McgStatus">With status, address and misc: what the guest's machine-check handler read from its registers.</param>
public sealed record CommandAnswer(
    string? Outcome,
    string? Value = null,
    string? Checksum = null,
    string? McgStatus = null,
    string? Status = null,
    string? Address = null,
    string? Misc = null) : ControlAnswer(true)
{
    public const string Done = "done";
    public const string Data = "data";
    public const string MachineCheck = "machine-check";
}

/// <summary>The answer to <c>status</c>.</summary>
/// <param name="State"><c>running</c>, <c>paused</c> (verified) or <c>failed</c>; with a barrier one of <see cref="VmmStates"/>.</param>
/// <param name="Failure">Why the guest stopped for good.</param>
/// <param name="Vcpu">What runs the guest: <c>kvm</c> or <c>software</c>.</param>
/// <param name="Attached">The agent has accepted the handoff on the present connection.</param>
/// <param name="MachineChecks">Injected so far.</param>
/// <param name="PendingEvents">Events that the agent has not acknowledged.</param>
/// <param name="Userfaultfd">Descriptor number in the VMM.</param>
/// <param name="StreamTarget">As in <see cref="VmmState"/>.</param>
public sealed record StatusAnswer(
    string Vm,
    int Pid,
    string State,
    string? Failure,
    string Vcpu,
    bool Attached,
    long MachineChecks,
    int PendingEvents,
    IReadOnlyList<RegionStatus> Regions,
    int Userfaultfd,
    string? StreamTarget = null) : ControlAnswer(true);

/// <summary>The answer to <c>migrate-out</c>: the other VMM has confirmed all of it, and this guest stays paused.</summary>
/// <param name="StreamTarget">Instance of that VMM.</param>
public sealed record MigrateAnswer(string StreamTarget) : ControlAnswer(true);

/// <summary>One piece of guest RAM, as in the handoff.</summary>
public sealed record RegionStatus(string GuestPhysicalAddress, long Bytes, string HostVirtualAddress, int PageBytes, int? MemfdNumber);

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    NumberHandling = JsonNumberHandling.Strict,
    RespectNullableAnnotations = true)]
[JsonSerializable(typeof(ControlRequest))]
[JsonSerializable(typeof(ControlAnswer))]
[JsonSerializable(typeof(CommandAnswer))]
[JsonSerializable(typeof(StatusAnswer))]
[JsonSerializable(typeof(MigrateAnswer))]
public sealed partial class ControlJson : JsonSerializerContext;
