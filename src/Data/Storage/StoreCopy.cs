using System.Globalization;
using Microsoft.Data.Sqlite;

namespace Fleet.Data.Storage;

/// <summary>Copies of the database: taken from a running control plane, and put back under one that does not run.</summary>
public static class StoreCopy
{
    /// <summary>Where the folder does not tell which store epochs were in use: well above the backup's.</summary>
    private const long UnknownLead = 16;

    /// <summary>Writes what is committed now to a new file, durable when it returns. The control plane may run.</summary>
    /// <exception cref="StoreException">There is no database, or the file exists already.</exception>
    public static void BackUp(StoreOptions store, string file)
    {
        if (!File.Exists(store.DatabasePath))
        {
            throw new StoreException($"{store.DatabasePath} does not exist.");
        }

        if (File.Exists(file))
        {
            throw new StoreException($"{file} exists already; a backup never replaces anything.");
        }

        // Credentials' hashes are in it: for its owner alone from the first byte on. VACUUM INTO takes an empty file.
        var partial = file + ".partial";
        File.Delete(partial);
        CreatePrivate(partial);
        using (var connection = Open(store.DatabasePath))
        {
            using var command = connection.CreateCommand();
            command.CommandText = "VACUUM INTO $file";
            command.Parameters.AddWithValue("$file", partial);
            command.ExecuteNonQuery();
        }

        Sync(partial);
        File.Move(partial, file);
        Sync(file);
    }

    /// <summary>
    /// Puts a backup in the database's place and raises the store epoch beside it, so that the next start begins a new one. What was there
    /// is kept beside it. In an order that a crash at any point leaves either refused or quarantined, never trusted.
    /// </summary>
    /// <param name="now">For the name of what is kept.</param>
    /// <returns>Where the database that was there is kept; null when there was none.</returns>
    /// <exception cref="StoreException">The control plane runs, or the backup is not whole.</exception>
    public static string? PutBack(StoreOptions store, string file, DateTimeOffset now)
    {
        if (!File.Exists(file))
        {
            throw new StoreException($"{file} does not exist.");
        }

        StoreStartup.CreateFolder(store.Folder);
        using var held = StoreLock.Take(store);
        var incoming = store.DatabasePath + ".incoming";
        File.Delete(incoming);
        CreatePrivate(incoming);
        using (var target = new FileStream(incoming, FileMode.Open, FileAccess.Write))
        using (var source = File.OpenRead(file))
        {
            source.CopyTo(target);
            target.Flush(flushToDisk: true);
        }

        var backedUp = Verify(incoming, file);
        var known = StoreEpoch.Read(store);
        StoreEpoch.Write(store, Math.Max(known ?? 0, StoreEpoch.Of(backedUp) + (known is null ? UnknownLead : 0)) + 1);
        var kept = File.Exists(store.DatabasePath)
            ? string.Create(CultureInfo.InvariantCulture, $"{store.DatabasePath}.before-{now.UtcDateTime:yyyyMMdd'T'HHmmssfff'Z'}")
            : null;
        foreach (var part in new[] { string.Empty, "-wal", "-shm" }.Where(part => File.Exists(store.DatabasePath + part)))
        {
            // A log that stayed behind would be applied to the other database.
            File.Move(store.DatabasePath + part, (kept ?? store.DatabasePath + ".orphan") + part, overwrite: kept is null);
        }

        File.Move(incoming, store.DatabasePath);
        Sync(store.DatabasePath);
        return kept;
    }

    /// <returns>Its revision.</returns>
    private static long Verify(string copy, string file)
    {
        try
        {
            using var connection = Open(copy);
            using var check = connection.CreateCommand();
            check.CommandText = "PRAGMA integrity_check";
            if (check.ExecuteScalar() is not "ok")
            {
                throw new StoreException($"{file} is damaged: SQLite's integrity check failed.");
            }

            using var counter = connection.CreateCommand();
            counter.CommandText = "SELECT Revision FROM counter";
            return counter.ExecuteScalar() is long revision ? revision : throw new StoreException($"{file} is not a database of Fleet.");
        }
        catch (SqliteException exception)
        {
            throw new StoreException($"{file} is not a database of Fleet: {exception.Message}", exception);
        }
    }

    // Without pooling: the file must not stay open behind the caller's back.
    private static SqliteConnection Open(string path)
    {
        var connection = new SqliteConnection(new SqliteConnectionStringBuilder
        {
            DataSource = path,
            Mode = SqliteOpenMode.ReadWrite,
            Pooling = false,
            DefaultTimeout = 30,
        }.ConnectionString);
        connection.Open();
        return connection;
    }

    /// <summary>Made empty, for its owner alone; SQLite gives its log the same rights.</summary>
    internal static void CreatePrivate(string path)
    {
        var options = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
        if (!OperatingSystem.IsWindows())
        {
            options.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        }

        new FileStream(path, options).Dispose();
    }

    // After a rename as well: it is a change of the file's inode too (ext4, XFS, Btrfs).
    private static void Sync(string path)
    {
        using var file = new FileStream(path, FileMode.Open, FileAccess.ReadWrite);
        file.Flush(flushToDisk: true);
    }
}
