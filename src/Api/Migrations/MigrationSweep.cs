using Fleet.Contracts.Migrations;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Migrations;

/// <summary>Ends migrations whose time is up, by the server's clock.</summary>
public sealed class MigrationSweep(StoreContexts contexts, StoreWriter writer, TimeProvider time, ILogger<MigrationSweep> logger) : BackgroundService
{
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(1);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Period, time);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            try
            {
                await SweepAsync(stoppingToken);
            }
            catch (Exception exception) when (exception is not OperationCanceledException)
            {
                MigrationLog.SweepFailed(logger, exception);
            }
        }
    }

    internal async Task SweepAsync(CancellationToken cancellationToken)
    {
        var now = time.GetUtcNow().ToUnixTimeMilliseconds();
        await using var db = contexts.OpenReader();
        var due = await db.Migrations
            .Where(MigrationRow.Active)
            .Where(row => row.State != MigrationStates.Granted && row.ExpiresAt <= now)
            .Select(row => row.Id)
            .ToListAsync(cancellationToken);
        foreach (var id in due)
        {
            await writer.ExecuteAsync(scope => MigrationCommands.ExpireAsync(scope, id), cancellationToken);
            MigrationLog.Expired(logger, id);
        }
    }
}
