using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;

namespace Fleet.Data.Storage;

/// <summary>Brings the database to this program's schema without a server, for those who want to see that done before it starts.</summary>
public static class StoreMigration
{
    /// <summary>What the next start would apply, oldest first. Changes nothing; the control plane may run.</summary>
    /// <exception cref="StoreException">There is no database, it is not one of Fleet, or a newer program has migrated it.</exception>
    public static IReadOnlyList<string> Pending(StoreOptions store)
    {
        RequireDatabase(store);
        using var db = new StoreContexts(Options.Create(store)).OpenReader();
        return Read(db, store);
    }

    /// <summary>Applies them, each in a transaction of its own.</summary>
    /// <returns>What was applied, oldest first.</returns>
    /// <exception cref="StoreException">As above, or the control plane runs.</exception>
    public static IReadOnlyList<string> Apply(StoreOptions store)
    {
        RequireDatabase(store);
        using var held = StoreLock.Take(store);
        using var db = new StoreContexts(Options.Create(store)).OpenWriter();
        var pending = Read(db, store);
        db.Database.Migrate();
        return pending;
    }

    private static void RequireDatabase(StoreOptions store)
    {
        if (!File.Exists(store.DatabasePath))
        {
            throw new StoreException($"{store.DatabasePath} does not exist. The first start of the server makes it.");
        }
    }

    private static List<string> Read(FleetDbContext db, StoreOptions store)
    {
        try
        {
            var applied = db.Database.GetAppliedMigrations().ToList();
            if (applied.Count == 0)
            {
                // Without this the tables would be put into whatever file stands there.
                throw new StoreException($"{store.DatabasePath} is not a database of Fleet, or its first start was cut off: start the server.");
            }

            RefuseNewer(db, applied, store);
            return [.. db.Database.GetPendingMigrations()];
        }
        catch (SqliteException exception)
        {
            throw new StoreException($"{store.DatabasePath} is not a database of Fleet: {exception.Message}", exception);
        }
    }

    /// <exception cref="StoreException">A newer program has migrated it: this one does not know what its tables mean.</exception>
    internal static void RefuseNewer(FleetDbContext db, IEnumerable<string> applied, StoreOptions store)
    {
        if (applied.Except(db.Database.GetMigrations()).ToList() is [.., var unknown])
        {
            throw new StoreException($"{store.DatabasePath} was migrated by a newer program, which made {unknown}.");
        }
    }
}
