namespace Fleet.Contracts.Faults;

/// <summary>A memory error of a host, as its agent reports it. It stays with the host: what of it concerns a VM is a poisoned page.</summary>
/// <param name="Kind"><c>corrected</c> or <c>uncorrected</c>.</param>
/// <param name="Dimm">Where it is, as far as the host can tell; null when it cannot.</param>
/// <param name="PhysicalFrame">Frame of the host's physical address, in 4 KiB units; null when it is not known, as for many corrected errors.</param>
public sealed record MemoryFault(string Kind, DimmIdentity? Dimm, long? PhysicalFrame);

/// <summary>
/// What names a memory module. Labels are often wrong, so that everything that the host knows is kept; modules that differ in any of it are
/// different ones, such as before and after a replacement. At least one member is not null; each has at most 128 characters.
/// </summary>
/// <param name="Label">As on the board, such as <c>P1-DIMMA3</c> (EDAC).</param>
/// <param name="Locator">As the firmware calls the slot (SMBIOS type 17).</param>
/// <param name="Serial">Serial number; null as well for a reader without the scope <c>read:hardware</c>.</param>
/// <param name="Manufacturer">Who made it.</param>
/// <param name="PartNumber">Part number.</param>
public sealed record DimmIdentity(string? Label, string? Locator, string? Serial, string? Manufacturer, string? PartNumber);

/// <summary>Errors of a host's memory that agree in DIMM, frame and kind, with a count.</summary>
/// <param name="Id">Number of the item; grows.</param>
/// <param name="Dimm">The module; null where the host could not tell.</param>
/// <param name="PhysicalFrame">Frame of the host's physical address, in 4 KiB units; null when it is not known, or not shown.</param>
/// <param name="PhysicalAddress">The same in bytes, as a hex string.</param>
/// <param name="Vm">The VM that had the frame mapped when it was reported last; null when none had.</param>
/// <param name="MemoryInstance">Of that VM; null without one.</param>
/// <param name="Frame">Guest frame of that VM, in 4 KiB units; null without one.</param>
/// <param name="FirstAt">When the first of these errors was seen.</param>
/// <param name="LastAt">When the last of these errors was seen.</param>
/// <param name="Count">Errors that this item stands for.</param>
/// <param name="Redacted">Physical address and serial number are not shown: that needs the scope <c>read:hardware</c>.</param>
public sealed record FaultResource(
    long Id,
    string Host,
    DimmIdentity? Dimm,
    string Kind,
    long? PhysicalFrame,
    string? PhysicalAddress,
    string? Vm,
    long? MemoryInstance,
    long? Frame,
    DateTimeOffset FirstAt,
    DateTimeOffset LastAt,
    long Count,
    bool Redacted);

/// <summary>Errors per host and DIMM, the worst first: which hosts should be emptied?</summary>
/// <param name="Since">Begin of the first bucket.</param>
/// <param name="Bucket">Length of a bucket, <c>1h</c> or <c>1d</c>; buckets begin at full hours or days of UTC.</param>
/// <param name="Items">Most uncorrected errors first, then most corrected ones.</param>
/// <param name="More">There are more than these, not as bad.</param>
public sealed record FaultSummary(DateTimeOffset Since, string Bucket, IReadOnlyList<DimmFaults> Items, bool More);

/// <summary>What a DIMM has done since the begin of the summary.</summary>
/// <param name="Dimm">The module; null for all errors of the host whose module is not known.</param>
/// <param name="Uncorrected">Uncorrected errors.</param>
/// <param name="Corrected">Corrected errors.</param>
/// <param name="DistinctFrames">Different physical frames among them, as far as they are known.</param>
/// <param name="LastAt">When the last error was seen; null where only the counts are kept.</param>
/// <param name="Buckets">Counts over time, ascending; buckets without errors are left out.</param>
/// <param name="Redacted">The serial number is not shown: that needs the scope <c>read:hardware</c>.</param>
public sealed record DimmFaults(
    string Host,
    DimmIdentity? Dimm,
    long Uncorrected,
    long Corrected,
    int DistinctFrames,
    DateTimeOffset? LastAt,
    IReadOnlyList<FaultBucket> Buckets,
    bool Redacted);

/// <param name="At">Begin of the bucket.</param>
/// <param name="Uncorrected">Uncorrected errors in it.</param>
/// <param name="Corrected">Corrected errors in it.</param>
public sealed record FaultBucket(DateTimeOffset At, long Uncorrected, long Corrected);

public static class FaultKinds
{
    public const string Corrected = "corrected";
    public const string Uncorrected = "uncorrected";

    public static bool IsValid(string text) => text is Corrected or Uncorrected;
}
