using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Agents;

/// <summary>
/// Carries to the database the little of the status board that belongs there: transitions, contests that ended and, about once a minute, when
/// each host was last heard. At most one transaction a second however large the fleet, and none that keeps the writer from others for long.
/// </summary>
public sealed class StatusSweep(
    StatusBoard board, Contests contests, StoreContexts contexts, StoreWriter writer, TimeProvider time, ILogger<StatusSweep> logger) : BackgroundService
{
    private const int MostAtOnce = 500;
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan LastSeenPeriod = TimeSpan.FromMinutes(1);
    private readonly Dictionary<string, Written> _written = [];

    public override async Task StartAsync(CancellationToken cancellationToken)
    {
        await using var db = contexts.OpenReader();
        var rows = await db.Hosts.ToListAsync(cancellationToken);
        board.Restore(rows);
        foreach (var row in rows)
        {
            _written[row.Id] = new Written(row.State, row.LastSeenAt ?? 0);
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
        var hosts = board.All().Select(host => (Host: host, Before: _written.GetValueOrDefault(host.Host, Written.Nothing))).ToList();
        var changed = hosts.Where(host => host.Before.State != host.Host.State).Take(MostAtOnce).Select(host => host.Host).ToList();
        var due = hosts
            .Where(host => host.Host.HeardAt is { } heard && heard - host.Before.SeenAt >= LastSeenPeriod.TotalMilliseconds)
            .OrderBy(host => host.Before.SeenAt)
            .Take(MostAtOnce)
            .Select(host => host.Host);
        var seen = changed.Union(due).ToList();
        var ended = contests.Ended();
        if (seen.Count == 0 && ended.Count == 0)
        {
            return;
        }

        var transitions = await writer.ExecuteAsync(scope => WriteAsync(scope, changed, seen, ended), cancellationToken);
        foreach (var (host, state, heardAt) in seen)
        {
            var before = _written.GetValueOrDefault(host, Written.Nothing);
            _written[host] = new Written(changed.Exists(item => item.Host == host) ? state : before.State, heardAt ?? before.SeenAt);
        }

        contests.Forget(ended);
        foreach (var (host, from, to) in transitions)
        {
            AgentLog.HostState(logger, host, from, to);
        }

        foreach (var (host, why) in ended)
        {
            AgentLog.ContestEnded(logger, host, why);
        }
    }

    private static async Task<List<(string Host, string From, string To)>> WriteAsync(
        WriteScope scope,
        List<(string Host, string State, long? HeardAt)> changed,
        List<(string Host, string State, long? HeardAt)> seen,
        IReadOnlyList<(string Host, string Why)> ended)
    {
        var ids = seen.Select(host => host.Host).Union(ended.Select(item => item.Host)).ToArray();
        var rows = await scope.Db.Hosts.Where(row => EF.Parameter(ids).Contains(row.Id)).ToDictionaryAsync(row => row.Id, StringComparer.Ordinal);
        var transitions = new List<(string, string, string)>();
        foreach (var (host, state, _) in changed)
        {
            if (rows.GetValueOrDefault(host) is { } row && row.State != state)
            {
                transitions.Add((host, row.State, state));
                row.Version = scope.Change(ChangeKinds.HostState, ChangeResources.Host(host), "system", state);
                row.State = state;
            }
        }

        foreach (var (host, _, heardAt) in seen)
        {
            if (heardAt is not null && rows.GetValueOrDefault(host) is { } row)
            {
                row.LastSeenAt = heardAt;
            }
        }

        foreach (var (host, why) in ended)
        {
            if (rows.GetValueOrDefault(host) is { } row)
            {
                row.Version = scope.Change(ChangeKinds.HostContestEnded, ChangeResources.Host(host), "system", why);
            }
        }

        return transitions;
    }

    private readonly record struct Written(string? State, long SeenAt)
    {
        public static readonly Written Nothing = new(null, 0);
    }
}
