using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Options;

namespace Fleet.Data.Storage;

/// <summary>Opens the store before anything else starts: folder, migrations, write-ahead log, store epoch.</summary>
public sealed class StoreStartup(StoreContexts contexts, IOptions<StoreOptions> options) : IHostedService
{
    /// <summary>Whether the database is there and migrated.</summary>
    public bool IsReady { get; private set; }

    public async Task StartAsync(CancellationToken cancellationToken)
    {
        var store = options.Value;
        CreateFolder(store.Folder);
        var databaseIsNew = !File.Exists(store.DatabasePath);
        if (databaseIsNew)
        {
            // Before anything is created, so that a refusal leaves the folder as it was found.
            StoreEpoch.RefuseOrphan(store);
            CreateFile(store.DatabasePath);
        }

        await using var db = contexts.OpenWriter();
        await db.Database.MigrateAsync(cancellationToken);
        await db.Database.ExecuteSqlRawAsync("PRAGMA journal_mode=WAL;", cancellationToken);
        var revision = await db.Counter.AsNoTracking().Select(row => row.Revision).SingleAsync(cancellationToken);
        StoreEpoch.Verify(store, revision);
        IsReady = true;
    }

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    private static void CreateFolder(string folder)
    {
        if (OperatingSystem.IsWindows())
        {
            Directory.CreateDirectory(folder);
            return;
        }

        Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

    /// <summary>Made empty, for its owner alone; SQLite gives its log the same rights.</summary>
    private static void CreateFile(string path)
    {
        var options = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
        if (!OperatingSystem.IsWindows())
        {
            options.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        }

        new FileStream(path, options).Dispose();
    }
}
