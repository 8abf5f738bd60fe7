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
    private readonly ConcurrentDictionary<string, HostEntry> _hosts = new(StringComparer.Ordinal);
    private int _claimed;

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

    public void Restore(HostRow row)
    {
        Of(row.Id).Restore(row.Incarnation, row.State, Now, Interval);
        Volatile.Write(ref _claimed, _hosts.Count);
    }

    public void Claim(string host, long incarnation)
    {
        Of(host).Claim(incarnation, Now, Interval);
        Volatile.Write(ref _claimed, _hosts.Count);
    }

    public bool Heartbeat(string host, long incarnation, IReadOnlyDictionary<string, VmStatus> vms) =>
        Of(host).Heartbeat(incarnation, vms, Now, Interval);

    public bool IsCurrent(string host, long incarnation) => Of(host).Incarnation == incarnation;

    /// <summary>An incarnation that no claim here was ever answered with.</summary>
    public bool IsFuture(string host, long incarnation) => incarnation > (Of(host).Incarnation ?? 0);

    public string StateOf(string host) => Of(host).StateAt(Now);

    public long? HeardAt(string host) => Of(host).HeardAt;

    public VmStatus? StatusOf(string host, string vm) => Of(host).StatusOf(vm, Now);

    public Pulse Changed(string host) => Of(host).Changed;

    public IEnumerable<(string Host, string State, long? HeardAt)> All() =>
        _hosts.Select(host => (host.Key, host.Value.StateAt(Now), host.Value.HeardAt));

    private HostEntry Of(string host) => _hosts.GetOrAdd(host, static _ => new HostEntry());
}
