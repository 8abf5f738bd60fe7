using Fleet.Api.Startup;
using Fleet.Data.Storage;

namespace Fleet.Api.Verbs;

/// <summary><c>backup FILE</c>, <c>restore FILE</c> and <c>migrate</c>: the program as a tool on its data folder, instead of as a server.</summary>
internal static class StoreVerbs
{
    private const string Help = """
        Fleet.Api: the control plane.

        Usage: Fleet.Api [settings]                 run the server
               Fleet.Api backup FILE [settings]     copy the database to a new file; the server may run
               Fleet.Api restore FILE [settings]    put a backup in the database's place; the server must not run
               Fleet.Api migrate [--check] [settings]   bring the database to this program's schema; the server must not run
               Fleet.Api --help

        Settings, also as environment variables (Fleet__DataFolder=…):
          --Fleet:DataFolder=FOLDER   where fleet.db, store.epoch and admin.token are (default: data, beside the program)
          --urls=URLS                 where the server listens (default: http://127.0.0.1:5480)

        backup never replaces a file. What it writes holds hashes of credentials: mode 0600.

        restore checks the backup, keeps the database that was there as fleet.db.before-TIME, and raises the store epoch. The next start
        of the server quarantines every VM until each host's agent has stated what it holds; guests run on meanwhile. Hosts that cannot
        state any more are fenced by POST /v1/hosts/HOST/fence. Tokens are again as they were when the backup was taken.

        migrate applies what the next start of the server would apply anyway, and says what that was. Back up first: there is no way back but
        restore. With --check it changes nothing, and names what is pending; the server may run.

        Exit codes: 0 done, 1 refused or failed; the reason is on standard error; 2 from migrate --check: migrations are pending.
        """;

    private const int PendingExitCode = 2;

    /// <returns>The exit code; null when the arguments ask for the server.</returns>
    public static int? Run(string[] args) => args switch
    {
        ["--help" or "-h" or "help", ..] or ["backup" or "restore" or "migrate", "--help" or "-h", ..] => Print(Help),
        ["backup", var file, .. var settings] when !file.StartsWith('-') => BackUp(file, settings),
        ["restore", var file, .. var settings] when !file.StartsWith('-') => Restore(file, settings),
        ["migrate", .. var rest] => Migrate(rest),
        ["backup" or "restore", ..] => Fail($"{args[0]} needs a file. Run with --help."),
        _ => null,
    };

    private static int BackUp(string file, string[] settings)
    {
        StoreCopy.BackUp(StoreOf(settings), Path.GetFullPath(file));
        return Print($"Backed up to {Path.GetFullPath(file)}");
    }

    private static int Restore(string file, string[] settings)
    {
        var kept = StoreCopy.PutBack(StoreOf(settings), Path.GetFullPath(file), TimeProvider.System.GetUtcNow());
        return Print(
            $"Restored from {Path.GetFullPath(file)}.{(kept is null ? string.Empty : $" The database that was there is kept as {kept}.")}\n"
            + "The next start of the server quarantines every VM until the hosts have stated what they hold.");
    }

    private static int Migrate(string[] arguments)
    {
        string[] settings = [.. arguments.Where(argument => argument != "--check")];

        // A misspelt --check would migrate.
        if (Array.Find(settings, setting => setting.StartsWith('-') && !setting.Contains(':') && !setting.Contains('=')) is { } unknown)
        {
            return Fail($"migrate does not know {unknown}. Run with --help.");
        }

        var store = StoreOf(settings);
        if (settings.Length == arguments.Length)
        {
            var applied = StoreMigration.Apply(store);
            return Print(Lines(applied.Count == 0 ? "Nothing was pending in" : "Applied to", store, applied));
        }

        var pending = StoreMigration.Pending(store);
        Print(Lines(pending.Count == 0 ? "Nothing is pending in" : "Pending in", store, pending));
        return pending.Count == 0 ? 0 : PendingExitCode;
    }

    private static string Lines(string what, StoreOptions store, IReadOnlyList<string> migrations) =>
        string.Join("\n  ", [$"{what} {store.DatabasePath}{(migrations.Count == 0 ? "." : ":")}", .. migrations]);

    private static StoreOptions StoreOf(string[] settings)
    {
        var configuration = new ConfigurationBuilder()
            .SetBasePath(AppContext.BaseDirectory)
            .AddJsonFile("appsettings.json", optional: true)
            .AddEnvironmentVariables()
            .AddCommandLine(settings)
            .Build();
        var folder = configuration[$"{FleetOptions.Section}:{nameof(FleetOptions.DataFolder)}"] ?? new FleetOptions().DataFolder;
        return new StoreOptions { Folder = Path.GetFullPath(folder, AppContext.BaseDirectory) };
    }

    private static int Print(string text)
    {
        Console.WriteLine(text);
        return 0;
    }

    private static int Fail(string text)
    {
        Console.Error.WriteLine(text);
        return 1;
    }
}
