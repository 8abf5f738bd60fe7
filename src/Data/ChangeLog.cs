using Microsoft.EntityFrameworkCore;

namespace Fleet.Data;

public static class ChangeLog
{
    /// <summary>
    /// Compaction floor: changes up to this revision are not kept. Derived from the log itself, of which the newest row is never
    /// removed, so that it can never disagree with it.
    /// </summary>
    public static async Task<long> FloorAsync(FleetDbContext db, CancellationToken cancellationToken) =>
        await db.Changes.OrderBy(row => row.Revision).Select(row => (long?)row.Revision).FirstOrDefaultAsync(cancellationToken) is { } oldest ? oldest - 1 : 0;
}
