using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Agents;

/// <summary>
/// Carries to the database the little of the status board that belongs there: transitions, and, once a minute, when each
/// host was last heard.
/// </summary>
public sealed class StatusSweep(StatusBoard board, StoreContexts contexts, StoreWriter writer, TimeProvider time, ILogger<StatusSweep> logger)
    : BackgroundService
{
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan LastSeenPeriod = TimeSpan.FromMinutes(1);
    private Dictionary<string, string> _written = [];
    private long _lastSeenAt;

    public override async Task StartAsync(CancellationToken cancellationToken)
    {
        await using var db = contexts.OpenReader();
        foreach (var row in await db.Hosts.ToListAsync(cancellationToken))
        {
            board.Restore(row);
            _written[row.Id] = row.State;
        }

        await base.StartAsync(cancellationToken);
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Period, time);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            try
            {
                await SweepAsync(stoppingToken);
            }
            catch (StoreWriteException exception)
            {
                AgentLog.SweepFailed(logger, exception);
            }
        }
    }

    private async Task SweepAsync(CancellationToken cancellationToken)
    {
        var now = time.GetUtcNow().ToUnixTimeMilliseconds();
        var hosts = board.All().ToList();
        var changed = hosts.Where(host => _written.GetValueOrDefault(host.Host) != host.State).ToList();
        var lastSeenDue = now - _lastSeenAt >= LastSeenPeriod.TotalMilliseconds;
        if (changed.Count == 0 && !lastSeenDue)
        {
            return;
        }

        var transitions = await writer.ExecuteAsync(scope => WriteAsync(scope, changed, lastSeenDue ? hosts : changed), cancellationToken);
        _written = hosts.ToDictionary(host => host.Host, host => host.State);
        _lastSeenAt = lastSeenDue ? now : _lastSeenAt;
        foreach (var (host, from, to) in transitions)
        {
            AgentLog.HostState(logger, host, from, to);
        }
    }

    private static async Task<List<(string Host, string From, string To)>> WriteAsync(
        WriteScope scope,
        List<(string Host, string State, long? HeardAt)> changed,
        List<(string Host, string State, long? HeardAt)> seen)
    {
        var transitions = new List<(string, string, string)>();
        foreach (var (host, state, _) in changed)
        {
            if (await scope.Db.Hosts.FindAsync(host) is { } row && row.State != state)
            {
                transitions.Add((host, row.State, state));
                row.Version = scope.Change(ChangeKinds.HostState, ChangeResources.Host(host), "system", state);
                row.State = state;
            }
        }

        foreach (var (host, _, heardAt) in seen)
        {
            if (heardAt is not null && await scope.Db.Hosts.FindAsync(host) is { } row)
            {
                row.LastSeenAt = heardAt;
            }
        }

        return transitions;
    }
}
