using System.Text.Json;

namespace Fleet.Contracts.Changes;

/// <summary>One row of the change log: what happened, in the order in which it was committed.</summary>
/// <param name="Revision">Grows by one with every change; its high bits (from bit 40) are the store epoch, which a restore from backup moves.</param>
/// <param name="Kind">Such as <c>pages.added</c> or <c>migration.granted</c>.</param>
/// <param name="Resource">Such as <c>vms/vm-1</c>.</param>
/// <param name="Actor">Id of the credential that asked for it, or <c>system</c>.</param>
/// <param name="Reason">As given by the caller; null where none was, or the token may not see it.</param>
/// <param name="Data">What the kind carries, as JSON; null when it carries nothing, or the token may not see it.</param>
public sealed record ChangeResource(
    long Revision, string Kind, string Resource, string Actor, string? Reason, DateTimeOffset At, JsonElement? Data);

/// <param name="Revision">Newest revision of the store when this was read.</param>
/// <param name="Floor">Compaction floor: changes up to this revision are not kept any more.</param>
public sealed record ChangeList(IReadOnlyList<ChangeResource> Items, string? Next, long Revision, long Floor) : ItemList<ChangeResource>(Items, Next);

/// <summary>Names of the server-sent events of GET /v1/changes; the id of each is its revision.</summary>
public static class ChangeEvents
{
    public const string Change = "change";

    /// <summary>Everything up to its id has been sent that matches; carries <see cref="Agents.Bookmark"/>.</summary>
    public const string Bookmark = "bookmark";
}
