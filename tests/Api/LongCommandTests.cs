using System.Data.Common;
using Fleet.Api.Changes;
using Fleet.Api.Security;
using Fleet.Api.Startup;
using Fleet.Api.Tests.Support;
using Fleet.Contracts.Security;
using Fleet.Data.Entities;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Diagnostics;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Tests;

/// <summary>What keeps house in the background shares the one writer with switchovers and reports: none of its commands may be long.</summary>
public sealed class LongCommandTests
{
    [Fact]
    public async Task Retention_InTheWriter_GoesByKey()
    {
        var deletes = new Deletes();
        await using var store = await TestStore.StartAsync(configureWriter: options => options.AddInterceptors(deletes));
        await store.WriteAsync(scope =>
        {
            for (var number = 1; number <= 12_000; number++)
            {
                scope.Change("test", "tests/1", "test");
                scope.Db.Hits.Add(new HitRow
                {
                    // Every second is old.
                    Vm = "vm-1", Frame = number, Host = "host-a", Access = "read", Evidence = "uffd", Outcome = "blocked", Count = 1, FirstAt = 0, LastAt = number % 2 == 0 ? 0 : scope.Now,
                });
            }

            for (var number = 1; number <= 10; number++)
            {
                scope.Db.Dimms.Add(new DimmRow { Id = number, Host = "host-a", Label = $"{number}", Locator = "", Serial = "", Manufacturer = "", PartNumber = "" });
                scope.Db.Faults.Add(new FaultRow { Dimm = number, PhysicalFrame = number, Kind = "corrected", Count = 1, FirstAt = 0, LastAt = number % 2 == 0 ? 0 : scope.Now });
                scope.Db.FaultHours.Add(new FaultHourRow { Dimm = number, Kind = "corrected", Hour = number % 2 == 0 ? 0 : scope.Now, Count = 1 });
            }

            return Task.FromResult(true);
        });
        var options = Options.Create(new FleetOptions { ChangesKept = 1_000, HitsKept = 11_000, FaultsKept = 1_000 });

        await new Retention(store.Contexts, store.Writer, TimeProvider.System, options, NullLogger<Retention>.Instance).RunAsync(TestContext.Current.CancellationToken);

        await using var db = store.Contexts.OpenReader();
        Assert.Equal(1_001, await db.Changes.CountAsync(TestContext.Current.CancellationToken));
        Assert.Equal((5_500, 1_001L), (await db.Hits.CountAsync(TestContext.Current.CancellationToken), await db.Hits.MinAsync(row => row.Id, TestContext.Current.CancellationToken)));
        Assert.Equal((5, 5, 5), (await db.Faults.CountAsync(TestContext.Current.CancellationToken), await db.FaultHours.CountAsync(TestContext.Current.CancellationToken), await db.Dimms.CountAsync(TestContext.Current.CancellationToken)));
        Assert.All(["changes", "hits", "faults", "fault_hours", "dimms"], table => Assert.Contains(deletes.All, command => command.Text.StartsWith($"DELETE FROM \"{table}\"", StringComparison.Ordinal)));
        foreach (var (text, parameters) in deletes.All)
        {
            Assert.DoesNotContain("OFFSET", text, StringComparison.OrdinalIgnoreCase);
            var plan = await PlanAsync(store.Folder, text, parameters);
            Assert.DoesNotContain(plan, step => step.StartsWith("SCAN", StringComparison.Ordinal) && !IsOfTheKeys(step));
            Assert.Contains(plan, step => step.Contains("USING INTEGER PRIMARY KEY", StringComparison.Ordinal));
        }
    }

    [Fact]
    public async Task LastUse_OfAFleetThatComesBack_WritesAFewAtATime()
    {
        var saves = new Saves();
        await using var store = await TestStore.StartAsync(configureWriter: options => options.AddInterceptors(saves));
        var tokens = Enumerable.Range(0, 1_200).Select(_ => TokenText.Create()).ToList();
        await store.WriteAsync(scope =>
        {
            foreach (var token in tokens)
            {
                TokenText.TryGetId(token, out var id);
                scope.Db.Credentials.Add(new CredentialRow { Id = id, Hash = TokenText.Hash(token), Name = "test", Scopes = "read" });
            }

            return Task.FromResult(true);
        });
        var credentials = new CredentialStore(store.Contexts, TimeProvider.System);
        foreach (var token in tokens)
        {
            Assert.NotNull(await credentials.FindAsync(token, TestContext.Current.CancellationToken));
        }

        saves.Rows.Clear();
        var uses = new LastUse(credentials, store.Writer, TimeProvider.System, NullLogger<LastUse>.Instance);
        await uses.WriteAsync(TestContext.Current.CancellationToken);

        Assert.Equal([500, 500, 200], saves.Rows);
        Assert.Equal(0, await store.ReadAsync(db => db.Credentials.CountAsync(row => row.LastUsedAt == null)));
        await uses.WriteAsync(TestContext.Current.CancellationToken);
        Assert.Equal(3, saves.Rows.Count);
    }

    private static bool IsOfTheKeys(string step) => step.Contains("VIRTUAL TABLE", StringComparison.Ordinal);

    private static async Task<List<string>> PlanAsync(string folder, string text, IReadOnlyList<(string Name, object? Value)> parameters)
    {
        await using var connection = new SqliteConnection($"Data Source={Path.Combine(folder, "fleet.db")};Pooling=False");
        await connection.OpenAsync(TestContext.Current.CancellationToken);
        await using var command = connection.CreateCommand();
        command.CommandText = "EXPLAIN QUERY PLAN " + text;
        foreach (var (name, value) in parameters)
        {
            command.Parameters.AddWithValue(name, value);
        }

        var plan = new List<string>();
        await using var reader = await command.ExecuteReaderAsync(TestContext.Current.CancellationToken);
        while (await reader.ReadAsync(TestContext.Current.CancellationToken))
        {
            plan.Add(reader.GetString(3));
        }

        return plan;
    }

    /// <summary>Statements of the writer that take rows out.</summary>
    private sealed class Deletes : DbCommandInterceptor
    {
        public List<(string Text, IReadOnlyList<(string Name, object? Value)> Parameters)> All { get; } = [];

        public override ValueTask<InterceptionResult<int>> NonQueryExecutingAsync(
            DbCommand command, CommandEventData eventData, InterceptionResult<int> result, CancellationToken cancellationToken = default)
        {
            if (command.CommandText.StartsWith("DELETE", StringComparison.Ordinal))
            {
                All.Add((command.CommandText, [.. command.Parameters.Cast<DbParameter>().Select(parameter => (parameter.ParameterName, parameter.Value))]));
            }

            return ValueTask.FromResult(result);
        }
    }

    /// <summary>How many rows each command of the writer changed.</summary>
    private sealed class Saves : SaveChangesInterceptor
    {
        public List<int> Rows { get; } = [];

        public override ValueTask<int> SavedChangesAsync(SaveChangesCompletedEventData eventData, int result, CancellationToken cancellationToken = default)
        {
            Rows.Add(result);
            return ValueTask.FromResult(result);
        }
    }
}
