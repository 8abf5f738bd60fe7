using System.Collections.Concurrent;
using Fleet.Api.Startup;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hosts;
using Fleet.Data.Entities;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Agents;

/// <summary>Heartbeats, in memory: which incarnation holds each host, when it was heard, and what it confirmed for each VM.</summary>
public sealed class StatusBoard(TimeProvider time, IOptions<FleetOptions> options)
{
    /// <summary>So many may always fall silent at one time.</summary>
    private const int LeastBraked = 10;

    private readonly ConcurrentDictionary<string, HostEntry> _hosts = new(StringComparer.Ordinal);
    private int _claimed;
    private long _startedAt = time.GetUtcNow().ToUnixTimeMilliseconds();
    private long? _brakedAt;

    private long Now => time.GetUtcNow().ToUnixTimeMilliseconds();

    /// <summary>The interval that is handed out: it grows with the fleet, so that heartbeats a second stay bounded.</summary>
    public TimeSpan Interval
    {
        get
        {
            var floor = options.Value.HeartbeatInterval;
            var needed = TimeSpan.FromSeconds(Math.Ceiling((double)Volatile.Read(ref _claimed) / options.Value.HeartbeatsPerSecond));
            return needed > floor ? needed : floor;
        }
    }

    /// <summary>Hosts that the brake on mass expiry holds online at present.</summary>
    public int Held { get; private set; }

    /// <summary>What the database remembers, once, at start.</summary>
    public void Restore(IReadOnlyList<HostRow> rows)
    {
        foreach (var row in rows)
        {
            Of(row.Id);
        }

        Volatile.Write(ref _claimed, _hosts.Count);
        // Known only now: their agents were handed out the interval of the whole fleet.
        foreach (var row in rows)
        {
            Of(row.Id).Restore(row.Incarnation, row.State, Now, Interval);
        }

        _startedAt = Now;
    }

    public void Claim(string host, long incarnation)
    {
        Of(host).Claim(incarnation, Now, Interval);
        Volatile.Write(ref _claimed, _hosts.Count);
    }

    public bool Heartbeat(string host, long incarnation, IReadOnlyDictionary<string, VmStatus> vms) =>
        Of(host).Heartbeat(incarnation, vms, Now, Interval);

    /// <summary>By how much an agent's count is more than it said before.</summary>
    public long CountUnreportedHits(string host, long incarnation, long total) => Of(host).CountUnreportedHits(incarnation, total);

    public bool IsCurrent(string host, long incarnation) => Of(host).Incarnation == incarnation;

    /// <summary>An incarnation that no claim here was ever answered with.</summary>
    public bool IsFuture(string host, long incarnation) => incarnation > (Of(host).Incarnation ?? 0);

    public string StateOf(string host) => StateOf(Of(host), Now);

    public long? HeardAt(string host) => Of(host).HeardAt;

    public VmStatus? StatusOf(string host, string vm) => Of(host).StatusOf(vm, Now);

    public Pulse Changed(string host) => Of(host).Changed;

    /// <summary>Something changed that concerns every host.</summary>
    public void ChangedAll()
    {
        foreach (var entry in _hosts.Values)
        {
            entry.Changed.Set();
        }
    }

    public IEnumerable<(string Host, string State, long? HeardAt)> All() =>
        _hosts.Select(host => (host.Key, StateOf(host.Value, Now), host.Value.HeardAt));

    /// <summary>
    /// Lets go of hosts that fell silent: to be called every second. Where many do at one time the fault is more likely on this side (a process
    /// that was stopped or starved, a network cut before it) than on theirs: then they are held, for at least an interval, in which each
    /// that lives is heard again, and at most the limit. Nothing that they said before counts as armed meanwhile.
    /// </summary>
    public ExpirySweepResult SweepExpired()
    {
        var now = Now;
        var entries = _hosts.Values.Select(entry => (Entry: entry, Expiry: entry.ExpiryAt(now, NotBefore))).ToList();
        var online = entries.Count(item => item.Expiry.IsOnline);
        var due = entries.Where(item => item.Expiry.IsDue).Select(item => item.Entry).ToList();
        var isMany = CanBrake && due.Count > Math.Max(LeastBraked, online * options.Value.ExpiryBrakeShare);
        var wasBraked = _brakedAt is not null;
        if (due.Count > 0 && (isMany || wasBraked))
        {
            _brakedAt ??= now;
            var held = TimeSpan.FromMilliseconds(now - _brakedAt.Value);
            if (held < options.Value.ExpiryBrakeLimit && (isMany || held < Interval))
            {
                Held = due.Count;
                return new ExpirySweepResult(due.Count, online, Began: !wasBraked, Released: false);
            }
        }

        due.ForEach(entry => entry.Expire(now, NotBefore));
        (_brakedAt, Held) = (null, 0);
        return new ExpirySweepResult(due.Count, online, Began: false, Released: wasBraked && due.Count > 0);
    }

    private long NotBefore => _startedAt + (long)(Interval + options.Value.StartGrace).TotalMilliseconds;

    // In a small fleet every host that falls silent is one that is gone, and is so at once.
    private bool CanBrake => options.Value.ExpiryBrakeShare < 1 && _hosts.Count > LeastBraked;

    private string StateOf(HostEntry entry, long now) => entry.StateAt(now, NotBefore, CanBrake);

    private HostEntry Of(string host) => _hosts.GetOrAdd(host, static _ => new HostEntry());
}

/// <param name="Silent">Hosts that were online until they fell silent.</param>
/// <param name="Online">Those and all others that are online.</param>
/// <param name="Began">The brake took hold of them in this sweep.</param>
/// <param name="Released">The brake let go of them in this sweep, and they are still silent.</param>
public readonly record struct ExpirySweepResult(int Silent, int Online, bool Began, bool Released);
