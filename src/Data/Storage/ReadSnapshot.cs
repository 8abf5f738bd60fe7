using System.Data.Common;

namespace Fleet.Data.Storage;

/// <summary>A read transaction: everything read from it is the state at <see cref="Revision"/>.</summary>
public sealed class ReadSnapshot(FleetDbContext db, DbTransaction transaction, long revision) : IAsyncDisposable
{
    public FleetDbContext Db { get; } = db;

    public long Revision { get; } = revision;

    public async ValueTask DisposeAsync()
    {
        await transaction.DisposeAsync();
        await Db.DisposeAsync();
    }
}
