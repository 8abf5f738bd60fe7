using System.Data.Common;
using Microsoft.EntityFrameworkCore.Diagnostics;

namespace Fleet.Data.Storage;

/// <summary>
/// Sets what SQLite keeps per connection. synchronous=FULL makes every commit fsync the log before it returns (I2);
/// query_only keeps readers from writing past the one writer; both set it, because they share a pool of connections.
/// </summary>
internal sealed class ConnectionSettings(bool readOnly) : DbConnectionInterceptor
{
    private readonly string _settings = readOnly
        ? "PRAGMA busy_timeout=5000; PRAGMA synchronous=FULL; PRAGMA query_only=1;"
        : "PRAGMA busy_timeout=5000; PRAGMA synchronous=FULL; PRAGMA query_only=0;";

    public override void ConnectionOpened(DbConnection connection, ConnectionEndEventData eventData)
    {
        using var command = connection.CreateCommand();
        command.CommandText = _settings;
        command.ExecuteNonQuery();
    }

    public override async Task ConnectionOpenedAsync(DbConnection connection, ConnectionEndEventData eventData, CancellationToken cancellationToken = default)
    {
        await using var command = connection.CreateCommand();
        command.CommandText = _settings;
        await command.ExecuteNonQueryAsync(cancellationToken);
    }
}
