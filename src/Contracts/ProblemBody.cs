using Fleet.Contracts.Migrations;

namespace Fleet.Contracts;

/// <summary>RFC 9457 problem details as this API sends them.</summary>
/// <param name="Code">Stable, for programs.</param>
/// <param name="Errors">Every validation error at once: JSON path or parameter to messages; null when none.</param>
/// <param name="Reasons">Why the gate said no; null otherwise.</param>
public sealed record ProblemBody(
    string? Type,
    string? Title,
    int? Status,
    string? Detail,
    string? Code,
    IReadOnlyDictionary<string, string[]>? Errors,
    IReadOnlyList<GateReason>? Reasons = null);
