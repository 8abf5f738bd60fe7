using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.Extensions.Options;

namespace Fleet.Data.Storage;

/// <summary>Makes the contexts: one kind for the writer, pooled read-only ones for everybody else.</summary>
public sealed class StoreContexts
{
    private readonly DbContextOptions<FleetDbContext> _writerOptions;
    private readonly PooledDbContextFactory<FleetDbContext> _readers;

    public StoreContexts(IOptions<StoreOptions> options)
    {
        var store = options.Value;
        var writer = Build(store, readOnly: false);
        store.ConfigureWriter?.Invoke(writer);
        _writerOptions = writer.Options;
        var reader = Build(store, readOnly: true).UseQueryTrackingBehavior(QueryTrackingBehavior.NoTracking);
        store.ConfigureReader?.Invoke(reader);
        _readers = new PooledDbContextFactory<FleetDbContext>(reader.Options, poolSize: 128);
    }

    public FleetDbContext OpenWriter() => new(_writerOptions);

    public FleetDbContext OpenReader() => _readers.CreateDbContext();

    /// <summary>A reader whose queries all see the same commit.</summary>
    public async Task<ReadSnapshot> OpenSnapshotAsync(CancellationToken cancellationToken)
    {
        var db = OpenReader();
        try
        {
            await db.Database.OpenConnectionAsync(cancellationToken);

            // Deferred: the default is BEGIN IMMEDIATE, which would take the writer's lock.
            var transaction = ((SqliteConnection)db.Database.GetDbConnection()).BeginTransaction(deferred: true);
            await db.Database.UseTransactionAsync(transaction, cancellationToken);
            var revision = await db.Counter.Select(row => row.Revision).SingleAsync(cancellationToken);
            return new ReadSnapshot(db, transaction, revision);
        }
        catch
        {
            await db.DisposeAsync();
            throw;
        }
    }

    private static DbContextOptionsBuilder<FleetDbContext> Build(StoreOptions store, bool readOnly)
    {
        var connection = new SqliteConnectionStringBuilder { DataSource = store.DatabasePath, DefaultTimeout = 30 };
        return new DbContextOptionsBuilder<FleetDbContext>()
            .UseSqlite(connection.ConnectionString)
            .AddInterceptors(new ConnectionSettings(readOnly));
    }
}
