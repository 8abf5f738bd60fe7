using Fleet.Data.Writing;

namespace Fleet.Api.Security;

/// <summary>Carries to the database, coarsely, when each credential was last used: no more than a row an hour for each.</summary>
public sealed class LastUse(CredentialStore credentials, StoreWriter writer, TimeProvider time, ILogger<LastUse> logger)
    : BackgroundService
{
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
        if (due.Count == 0)
        {
            return;
        }

        await writer.ExecuteAsync(
            async scope =>
            {
                foreach (var (id, at) in due)
                {
                    if (await scope.Db.Credentials.FindAsync(id) is { } row)
                    {
                        row.LastUsedAt = at;
                    }
                }

                return due.Count;
            },
            cancellationToken);
        foreach (var (id, at) in due)
        {
            _written[id] = at;
        }
    }
}
