using Fleet.Contracts;

namespace Fleet.Data.Pages;

/// <summary>Folds changes of one poisoned set, in order, into one: cleared pages go first, then the added ones come in.</summary>
public sealed class DeltaFold
{
    private readonly HashSet<PageKey> _added = [];
    private readonly HashSet<PageKey> _cleared = [];

    public IReadOnlyList<PageKey> Added => [.. _added.OrderBy(page => page.Frame)];

    public IReadOnlyList<PageKey> Cleared => [.. _cleared.OrderBy(page => page.Frame)];

    public void Apply(PagePayload change)
    {
        foreach (var cleared in change.Cleared)
        {
            var page = new PageKey(cleared.Frame, cleared.Shift);
            if (!_added.Remove(page))
            {
                _cleared.Add(page);
            }
        }

        foreach (var page in change.Added)
        {
            if (!_cleared.Remove(page))
            {
                _added.Add(page);
            }
        }
    }
}
