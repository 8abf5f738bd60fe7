using Fleet.Api.Security;
using Fleet.Api.Security.Limits;

namespace Fleet.Api.Startup;

/// <summary>Section <c>Fleet</c>.</summary>
public sealed class FleetOptions
{
    public const string Section = "Fleet";

    /// <summary>Where fleet.db, store.epoch and admin.token are; relative to the program's folder.</summary>
    public string DataFolder { get; set; } = "data";

    /// <summary>Allows http on an address that is not loopback: tokens then cross the network in the clear.</summary>
    public bool AllowPlainHttp { get; set; }

    /// <summary><c>json</c> (one object a line) or <c>console</c>.</summary>
    public string LogFormat { get; set; } = "json";

    /// <summary>How often an agent of a small fleet sends a heartbeat. A host is unknown after 3 and offline after 12 of these.</summary>
    public TimeSpan HeartbeatInterval { get; set; } = TimeSpan.FromSeconds(5);

    /// <summary>Heartbeats a second above which the interval is stretched.</summary>
    public int HeartbeatsPerSecond { get; set; } = 500;

    /// <summary>About how often an idle desired-state stream carries a bookmark.</summary>
    public TimeSpan BookmarkInterval { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>About how long a desired-state stream lives before the agent has to open another.</summary>
    public TimeSpan StreamLifetime { get; set; } = TimeSpan.FromHours(1);

    /// <summary>How long a write to a desired-state stream may take before its connection is given up as dead.</summary>
    public TimeSpan WriteDeadline { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>Reconnects a second for which the agents are spread out when the API stops; they come back over streams / this, at least 2 seconds.</summary>
    public int ReconnectsPerSecond { get; set; } = 100;

    /// <summary>Streams whose opening snapshot is read at a time.</summary>
    public int SnapshotsAtOnce { get; set; } = 8;

    /// <summary>Streams that may wait for theirs; any more are answered 503 with Retry-After.</summary>
    public int SnapshotsWaiting { get; set; } = 1000;

    /// <summary>No host expires before an interval and this have passed since the start: the API's own absence proves nothing about hosts.</summary>
    public TimeSpan StartGrace { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>Share of the online hosts (and at least 10) of which no more expire at one time: more of them at once look like this side's fault. 1: no brake.</summary>
    public double ExpiryBrakeShare { get; set; } = 0.2;

    /// <summary>The longest time that the brake holds a host online that would have expired.</summary>
    public TimeSpan ExpiryBrakeLimit { get; set; } = TimeSpan.FromMinutes(2);

    /// <summary>How long a migration may prepare before it fails.</summary>
    public TimeSpan MigrationLifetime { get; set; } = TimeSpan.FromHours(1);

    /// <summary>How long the gate waits for source and target once asked for the switchover; the guest stands still meanwhile.</summary>
    public TimeSpan SwitchoverLifetime { get; set; } = TimeSpan.FromSeconds(60);

    /// <summary>Changes older than this are dropped from the log, the oldest first.</summary>
    public TimeSpan ChangeRetention { get; set; } = TimeSpan.FromDays(30);

    /// <summary>Most changes that the log keeps.</summary>
    public int ChangesKept { get; set; } = 1_000_000;

    /// <summary>Hits whose last access is older than this are dropped.</summary>
    public TimeSpan HitRetention { get; set; } = TimeSpan.FromDays(180);

    /// <summary>Most hits that are kept.</summary>
    public int HitsKept { get; set; } = 1_000_000;

    /// <summary>Memory errors of hosts that were seen last longer ago are dropped, and their counts by the hour.</summary>
    public TimeSpan FaultRetention { get; set; } = TimeSpan.FromDays(180);

    /// <summary>Most memory errors of hosts, and most counts by the hour, that are kept.</summary>
    public int FaultsKept { get; set; } = 1_000_000;

    /// <summary>How often the six above are seen to.</summary>
    public TimeSpan RetentionInterval { get; set; } = TimeSpan.FromMinutes(10);

    /// <summary>PEM file with the authorities of client certificates; set, every https endpoint needs one. Null: none is asked for.</summary>
    public string? ClientCertificateCa { get; set; }

    public JwtOptions Jwt { get; set; } = new();

    public RateLimitOptions RateLimits { get; set; } = new();
}
