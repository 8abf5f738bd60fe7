using System.Globalization;

namespace Fleet.Data.Storage;

/// <summary>
/// The store epoch is the high bits of every revision. It is kept in a file beside the database as well, so that a database
/// put back from a backup is noticed before it can issue a number twice.
/// </summary>
public static class StoreEpoch
{
    public const int Shift = 40;

    public static long Of(long revision) => revision >> Shift;

    /// <exception cref="StoreException">There is an epoch file, but no database that it could belong to.</exception>
    internal static void RefuseOrphan(StoreOptions store)
    {
        if (File.Exists(store.EpochPath))
        {
            throw new StoreException(
                $"{store.EpochPath} says that store epoch {File.ReadAllText(store.EpochPath).Trim()} was in use here, but {store.DatabasePath} "
                + "does not exist. A new database would issue the same numbers again: put the database back, or use an empty data folder.");
        }
    }

    /// <exception cref="StoreException">The file does not belong to this database.</exception>
    internal static void Verify(StoreOptions store, long revision)
    {
        if (!File.Exists(store.EpochPath))
        {
            // A database that has never written anything cannot have issued a number: it may be a first start cut short.
            if (revision != 0)
            {
                throw new StoreException(
                    $"{store.EpochPath} is missing, but {store.DatabasePath} has been in use (store epoch {Of(revision)}). "
                    + "If the database was put back from a backup, hosts may know newer state than it holds: do not go on. "
                    + $"If only the file was lost, create it again with the text {Of(revision)}.");
            }

            DurableFile.Write(store.EpochPath, Of(revision).ToString(CultureInfo.InvariantCulture) + "\n");
            return;
        }

        var text = File.ReadAllText(store.EpochPath).Trim();
        if (!long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var epoch) || epoch != Of(revision))
        {
            throw new StoreException(
                $"{store.EpochPath} says store epoch '{text}', but {store.DatabasePath} is of store epoch {Of(revision)}: they do not belong together.");
        }
    }
}
