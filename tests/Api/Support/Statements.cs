using System.Collections.Concurrent;
using System.Data.Common;
using Fleet.Data.Storage;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Diagnostics;

namespace Fleet.Api.Tests.Support;

/// <summary>Keeps the queries that the store is asked, as they are sent.</summary>
internal sealed class Statements : DbCommandInterceptor
{
    public ConcurrentQueue<Statement> Sent { get; } = new();

    public override ValueTask<InterceptionResult<DbDataReader>> ReaderExecutingAsync(
        DbCommand command, CommandEventData eventData, InterceptionResult<DbDataReader> result, CancellationToken cancellationToken = default)
    {
        Sent.Enqueue(Statement.Of(command));
        return ValueTask.FromResult(result);
    }
}

internal sealed record Statement(string Text, IReadOnlyDictionary<string, object?> Parameters)
{
    public static Statement Of(DbCommand command) =>
        new(command.CommandText, command.Parameters.Cast<DbParameter>().ToDictionary(item => item.ParameterName, item => item.Value));

    /// <summary>How SQLite goes about it (EXPLAIN QUERY PLAN), a line for each step.</summary>
    public async Task<IReadOnlyList<string>> PlanAsync(StoreContexts contexts)
    {
        await using var db = contexts.OpenReader();
        await using var connection = new SqliteConnection(db.Database.GetConnectionString());
        await connection.OpenAsync();
        await using var command = connection.CreateCommand();
        command.CommandText = "EXPLAIN QUERY PLAN " + Text;
        foreach (var (name, value) in Parameters)
        {
            command.Parameters.AddWithValue(name, value);
        }

        var steps = new List<string>();
        await using var reader = await command.ExecuteReaderAsync();
        while (await reader.ReadAsync())
        {
            steps.Add(reader.GetString(3));
        }

        return steps;
    }
}
