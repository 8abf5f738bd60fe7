namespace Fleet.Contracts.Pages;

/// <summary>Body of POST /v1/vms/{vm}/pages; at most 10,000 pages.</summary>
public sealed record AddPagesRequest(IReadOnlyList<PageReport> Pages, string? Reason);

/// <param name="Frame">First guest frame, in 4 KiB units, aligned to the page's size.</param>
/// <param name="Shift">12 (4 KiB), 21 (2 MiB) or 30 (1 GiB).</param>
/// <param name="Class"><c>srar</c>, <c>srao</c>, <c>ucna</c> or <c>unknown</c> (Intel SDM volume 3, 16.6).</param>
/// <param name="Source"><c>vmm</c>, <c>memory-failure</c>, <c>operator</c> or <c>import</c>.</param>
/// <param name="DetectedAt">When the error was seen; the server's time when absent.</param>
public sealed record PageReport(long Frame, int Shift, string? Class = null, string? Source = null, DateTimeOffset? DetectedAt = null);

/// <param name="Generation">The VM's generation after the request.</param>
/// <param name="Added">Pages that were new.</param>
/// <param name="Already">Pages that were poisoned, or covered by a larger poisoned page, before.</param>
public sealed record AddPagesResult(long Generation, int Added, int Already);

/// <param name="Generation">The VM's generation, that these items belong to.</param>
public sealed record PageList(long Generation, IReadOnlyList<PageResource> Items, string? Next);

/// <param name="Frame">First guest frame, in 4 KiB units.</param>
/// <param name="Shift">12 (4 KiB), 21 (2 MiB) or 30 (1 GiB).</param>
/// <param name="FirstHost">The VM's host when the page was first reported; null when it was parked.</param>
/// <param name="AddedGeneration">The generation that brought it into the set.</param>
/// <param name="Version">The ETag for a conditional clear; every further report of the page changes it.</param>
public sealed record PageResource(
    long Frame,
    int Shift,
    string GuestPhysicalAddress,
    string Class,
    string Source,
    string? FirstHost,
    DateTimeOffset DetectedAt,
    long AddedGeneration,
    IReadOnlyList<PageOnHost> Hosts,
    long Version);

/// <param name="State"><c>pending</c>, <c>armed</c>, <c>hit</c>, <c>failed</c> or <c>unknown</c>.</param>
/// <param name="ArmedShift">Size of the page that the host had to arm to cover this one, as a power of two; null when not armed.</param>
/// <param name="Reason">Why, when failed.</param>
public sealed record PageOnHost(string Host, string State, int? ArmedShift, string? Reason);

public static class PageStates
{
    public const string Pending = "pending";
    public const string Armed = "armed";
    public const string Hit = "hit";
    public const string Failed = "failed";
    public const string Unknown = "unknown";
}

public static class PageClasses
{
    public const string Srar = "srar";
    public const string Srao = "srao";
    public const string Ucna = "ucna";
    public const string Unknown = "unknown";

    public static bool IsValid(string text) => text is Srar or Srao or Ucna or Unknown;
}

public static class PageSources
{
    public const string Vmm = "vmm";
    public const string MemoryFailure = "memory-failure";
    public const string Operator = "operator";
    public const string Import = "import";

    public static bool IsValid(string text) => text is Vmm or MemoryFailure or Operator or Import;
}
