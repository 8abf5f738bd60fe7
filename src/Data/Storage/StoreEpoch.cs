using System.Globalization;
using Fleet.Contracts;
using Fleet.Data.Writing;

namespace Fleet.Data.Storage;

/// <summary>
/// The store epoch is the high bits of every revision. It is kept in a file beside the database as well, so that a database
/// put back from a backup is noticed before it can issue a number twice.
/// </summary>
public static class StoreEpoch
{
    public const int Shift = StoreEpochs.Shift;

    public static long Of(long revision) => StoreEpochs.Of(revision);

    /// <summary>
    /// Begins a new store epoch within a command of the writer: above the database's, the file's, and whatever was seen elsewhere. The
    /// file is on disk first: if the commit does not follow, the next start finds it ahead of the database and begins yet another.
    /// </summary>
    /// <param name="seen">Highest store epoch that is known to have been in use.</param>
    public static long Begin(WriteScope scope, StoreOptions store, long seen)
    {
        var epoch = Math.Max(Math.Max(Of(scope.Revision), Read(store) ?? 0), seen) + 1;
        Write(store, epoch);
        scope.BeginStoreEpoch(epoch);
        return epoch;
    }

    /// <summary>The epoch in the file; null when there is none, or it holds something else.</summary>
    internal static long? Read(StoreOptions store) =>
        File.Exists(store.EpochPath)
        && long.TryParse(File.ReadAllText(store.EpochPath).Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out var epoch)
            ? epoch
            : null;

    /// <summary>Durable when it returns.</summary>
    internal static void Write(StoreOptions store, long epoch) =>
        DurableFile.Write(store.EpochPath, epoch.ToString(CultureInfo.InvariantCulture) + "\n");

    /// <exception cref="StoreException">There is an epoch file, but no database that it could belong to.</exception>
    internal static void RefuseOrphan(StoreOptions store)
    {
        if (File.Exists(store.EpochPath))
        {
            throw new StoreException(
                $"{store.EpochPath} says that store epoch {File.ReadAllText(store.EpochPath).Trim()} was in use here, but {store.DatabasePath} "
                + "does not exist. A new database would issue the same numbers again: put a backup back with the verb restore, or use an empty data folder.");
        }
    }

    /// <returns>Whether the file is ahead: the database was put back from a backup, and a new store epoch must begin.</returns>
    /// <exception cref="StoreException">The file does not belong to this database.</exception>
    internal static bool IsAhead(StoreOptions store, long revision)
    {
        if (!File.Exists(store.EpochPath))
        {
            // A database that has never written anything cannot have issued a number: it may be a first start cut short.
            if (revision != 0)
            {
                throw new StoreException(
                    $"{store.EpochPath} is missing, but {store.DatabasePath} has been in use (store epoch {Of(revision)}). "
                    + "If the database was put back from a backup, hosts may know newer state than it holds: put it back with the verb restore. "
                    + $"If only the file was lost, create it again with the text {Of(revision)}.");
            }

            Write(store, Of(revision));
            return false;
        }

        if (Read(store) is not { } epoch || epoch < Of(revision))
        {
            throw new StoreException(
                $"{store.EpochPath} says store epoch '{File.ReadAllText(store.EpochPath).Trim()}', but {store.DatabasePath} is of store epoch "
                + $"{Of(revision)}: they do not belong together.");
        }

        return epoch > Of(revision);
    }
}
