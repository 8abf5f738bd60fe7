using Fleet.Contracts.Migrations;

namespace Fleet.Contracts;

/// <summary>RFC 9457 problem details as this API sends them.</summary>
/// <param name="Code">Stable, for programs.</param>
/// <param name="Errors">For validation, every error at once: JSON path or parameter to messages.</param>
/// <param name="Reasons">For <c>gate-denied</c>: why the gate said no.</param>
/// <param name="Expected">For <c>spool-gap</c>: the sequence to go on from.</param>
/// <param name="Floor">For <c>changes-gone</c>: changes up to this revision are not kept.</param>
/// <param name="Revision">For <c>changes-gone</c>: newest revision, to go on from once the resources are listed anew.</param>
/// <param name="Frame">For <c>covered-by-larger</c>: first frame of the larger page, in 4 KiB units.</param>
/// <param name="Shift">For <c>covered-by-larger</c>: size of the larger page as a power of two.</param>
public sealed record ProblemBody(
    string? Type,
    string? Title,
    int? Status,
    string? Detail,
    string? Code,
    IReadOnlyDictionary<string, string[]>? Errors,
    IReadOnlyList<GateReason>? Reasons = null,
    long? Expected = null,
    long? Floor = null,
    long? Revision = null,
    long? Frame = null,
    int? Shift = null);
