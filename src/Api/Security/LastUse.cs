using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Security;

/// <summary>Carries to the database, coarsely, when each credential was last used: no more than a row an hour for each, and
/// none that keeps the writer from others for long.</summary>
public sealed class LastUse(CredentialStore credentials, StoreWriter writer, TimeProvider time, ILogger<LastUse> logger)
    : BackgroundService
{
    private const int MostAtOnce = 500;
    private static readonly TimeSpan Period = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan Coarseness = TimeSpan.FromHours(1);
    private readonly Dictionary<string, long> _written = [];

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Period, time);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            try
            {
                await WriteAsync(stoppingToken);
            }
            catch (StoreWriteException exception)
            {
                SecurityLog.LastUseFailed(logger, exception);
            }
        }
    }

    internal async Task WriteAsync(CancellationToken cancellationToken)
    {
        var due = credentials.LastUse
            .Where(use => use.Value - _written.GetValueOrDefault(use.Key) >= Coarseness.TotalMilliseconds)
            .ToList();

        // After a start all of a large fleet are due at once.
        foreach (var some in due.Chunk(MostAtOnce))
        {
            await writer.ExecuteAsync(scope => WriteAsync(scope, some), cancellationToken);
            foreach (var (id, at) in some)
            {
                _written[id] = at;
            }
        }
    }

    private static async Task<int> WriteAsync(WriteScope scope, KeyValuePair<string, long>[] uses)
    {
        string[] ids = [.. uses.Select(use => use.Key)];
        var rows = await scope.Db.Credentials.Where(row => EF.Parameter(ids).Contains(row.Id)).ToDictionaryAsync(row => row.Id, StringComparer.Ordinal);
        foreach (var (id, at) in uses)
        {
            if (rows.GetValueOrDefault(id) is { } row)
            {
                row.LastUsedAt = at;
            }
        }

        return rows.Count;
    }
}
