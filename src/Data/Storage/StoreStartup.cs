using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Options;

namespace Fleet.Data.Storage;

/// <summary>Opens the store before anything else starts: folder, migrations, write-ahead log, store epoch.</summary>
public sealed class StoreStartup(StoreContexts contexts, IOptions<StoreOptions> options) : IHostedService, IDisposable
{
    private StoreLock? _lock;

    /// <summary>Whether the database is there and migrated.</summary>
    public bool IsReady { get; private set; }

    /// <summary>The store epoch beside the database is ahead of it: it was put back from a backup.</summary>
    public bool WasPutBack { get; private set; }

    /// <summary>That of the database as it was found.</summary>
    public long StoreEpochAtStart { get; private set; }

    public async Task StartAsync(CancellationToken cancellationToken)
    {
        var store = options.Value;
        CreateFolder(store.Folder);
        _lock = StoreLock.Take(store);
        try
        {
            await OpenAsync(store, cancellationToken);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public Task StopAsync(CancellationToken cancellationToken)
    {
        Dispose();
        return Task.CompletedTask;
    }

    public void Dispose() => _lock?.Dispose();

    private async Task OpenAsync(StoreOptions store, CancellationToken cancellationToken)
    {
        var databaseIsNew = !File.Exists(store.DatabasePath);
        if (databaseIsNew)
        {
            // Before anything is created, so that a refusal leaves the folder as it was found.
            StoreEpoch.RefuseOrphan(store);
            StoreCopy.CreatePrivate(store.DatabasePath);
        }

        await using var db = contexts.OpenWriter();
        StoreMigration.RefuseNewer(db, await db.Database.GetAppliedMigrationsAsync(cancellationToken), store);
        await db.Database.MigrateAsync(cancellationToken);
        await db.Database.ExecuteSqlRawAsync("PRAGMA journal_mode=WAL;", cancellationToken);
        var revision = await db.Counter.AsNoTracking().Select(row => row.Revision).SingleAsync(cancellationToken);
        StoreEpochAtStart = StoreEpoch.Of(revision);
        WasPutBack = StoreEpoch.IsAhead(store, revision);
        IsReady = true;
    }

    internal static void CreateFolder(string folder)
    {
        if (OperatingSystem.IsWindows())
        {
            Directory.CreateDirectory(folder);
            return;
        }

        Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }
}
