using Fleet.Contracts.Hits;
using Fleet.Demo.Running;

namespace Fleet.EndToEnd.Tests;

internal static class HitCounts
{
    /// <summary>Every access of a VM that was stored, page by page of the list.</summary>
    public static async Task<long> CountHitsAsync(this LocalFleet fleet, string vm, CancellationToken cancellationToken) =>
        (await fleet.AllHitsAsync(vm, cancellationToken)).Sum(hit => hit.Count);

    public static async Task<IReadOnlyList<HitResource>> AllHitsAsync(this LocalFleet fleet, string vm, CancellationToken cancellationToken)
    {
        var hits = new List<HitResource>();
        string? after = null;
        do
        {
            var page = await fleet.Client.GetHitsAsync(vm, cancellationToken, after);
            hits.AddRange(page.Items);
            after = page.Next;
        }
        while (after is not null);

        return hits;
    }
}
