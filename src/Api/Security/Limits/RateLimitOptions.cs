namespace Fleet.Api.Security.Limits;

/// <summary>Section <c>Fleet:RateLimits</c>. Every principal has a bucket of its own in every lane, so that none takes from another.</summary>
public sealed class RateLimitOptions
{
    public bool Enabled { get; set; } = true;

    /// <summary>Whether callers on this machine are limited. A proxy here makes everybody look like one: then set it.</summary>
    public bool Loopback { get; set; }

    /// <summary>Whether administrators are limited.</summary>
    public bool Admin { get; set; }

    /// <summary>What a migration's orchestrator asks while a guest may stand still.</summary>
    public LaneLimit Switchover { get; set; } = new() { PerSecond = 200, Burst = 400 };

    /// <summary>Poison on its way in: agents' spools, pages reported by hand.</summary>
    public LaneLimit Reports { get; set; } = new() { PerSecond = 100, Burst = 400 };

    /// <summary>The rest of what agents ask. An agent fetches each of its VMs by itself where a snapshot did not fit.</summary>
    public LaneLimit Heartbeat { get; set; } = new() { PerSecond = 50, Burst = 1000 };

    /// <summary>Everything else.</summary>
    public LaneLimit Lists { get; set; } = new() { PerSecond = 50, Burst = 200 };

    /// <summary>Without a token, enrolment above all: by address.</summary>
    public LaneLimit Anonymous { get; set; } = new() { PerSecond = 20, Burst = 200 };

    /// <summary>Refused authentications, by address. Valid tokens from the same address are not touched by it.</summary>
    public LaneLimit Failures { get; set; } = new() { PerSecond = 2, Burst = 60 };

    internal IEnumerable<string> Errors() =>
        from lane in new (string Name, LaneLimit Limit)[]
        {
            (nameof(Switchover), Switchover), (nameof(Reports), Reports), (nameof(Heartbeat), Heartbeat),
            (nameof(Lists), Lists), (nameof(Anonymous), Anonymous), (nameof(Failures), Failures),
        }
        where lane.Limit.PerSecond < 1 || lane.Limit.Burst < lane.Limit.PerSecond
        select $"Fleet:RateLimits:{lane.Name} needs PerSecond of 1 or more and a Burst not below it.";
}

/// <summary>A token bucket.</summary>
public sealed class LaneLimit
{
    public int PerSecond { get; set; }

    public int Burst { get; set; }
}
