using System.Globalization;
using System.Threading.RateLimiting;
using Fleet.Api.Problems;
using Fleet.Api.Startup;
using Microsoft.AspNetCore.RateLimiting;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Security.Limits;

/// <summary>The limits of each principal in each lane, and of each address that has no principal or fails to be one.</summary>
public sealed class RateLimits : IConfigureOptions<RateLimiterOptions>, IDisposable
{
    private readonly RateLimitOptions _options;
    private readonly Refusals _refusals;
    private readonly PartitionedRateLimiter<string> _failures;

    public RateLimits(IOptions<FleetOptions> options, Refusals refusals)
    {
        _options = options.Value.RateLimits;
        _refusals = refusals;
        _failures = PartitionedRateLimiter.Create<string, string>(address => RateLimitPartition.GetTokenBucketLimiter(address, _ => BucketOf(_options.Failures)));
    }

    public void Configure(RateLimiterOptions options)
    {
        options.GlobalLimiter = PartitionedRateLimiter.Create<HttpContext, (Lane Lane, string Caller)>(PartitionOf);
        options.OnRejected = (rejected, _) =>
        {
            var http = rejected.HttpContext;
            _refusals.Add(http, ProblemTypes.RateLimited.Code);
            return new ValueTask(WriteAsync(http, rejected.Lease));
        };
    }

    /// <summary>Counts a refused authentication; too many from one address are answered with 429 instead.</summary>
    /// <returns>Whether it was answered.</returns>
    public async Task<bool> RefuseFailureAsync(HttpContext http)
    {
        if (!AppliesTo(http))
        {
            return false;
        }

        using var lease = _failures.AttemptAcquire(http.AddressKey());
        if (lease.IsAcquired)
        {
            return false;
        }

        await WriteAsync(http, lease);
        return true;
    }

    public void Dispose() => _failures.Dispose();

    private static Task WriteAsync(HttpContext http, RateLimitLease lease)
    {
        var seconds = lease.TryGetMetadata(MetadataName.RetryAfter, out var after) ? Math.Max(1, Math.Ceiling(after.TotalSeconds)) : 1;
        http.Response.Headers.RetryAfter = seconds.ToString(CultureInfo.InvariantCulture);
        return new Problem(ProblemTypes.RateLimited).WriteAsync(http);
    }

    private static TokenBucketRateLimiterOptions BucketOf(LaneLimit limit) => new()
    {
        TokenLimit = limit.Burst,
        TokensPerPeriod = limit.PerSecond,
        ReplenishmentPeriod = TimeSpan.FromSeconds(1),
        QueueLimit = 0,
    };

    private bool AppliesTo(HttpContext http) => _options.Enabled && (_options.Loopback || !http.IsLocal());

    private RateLimitPartition<(Lane, string)> PartitionOf(HttpContext http)
    {
        var lane = Lanes.Of(http.GetEndpoint());
        var known = http.User.Identity is { IsAuthenticated: true };

        // Whoever is nobody on a route that needs somebody is refused next, and counted there.
        if (!AppliesTo(http) || lane == Lane.None || (!known && lane != Lane.Anonymous) || (!_options.Admin && http.User.Has(Scopes.Admin)))
        {
            return RateLimitPartition.GetNoLimiter((Lane.None, string.Empty));
        }

        var caller = known && lane != Lane.Anonymous ? http.User.Actor() : http.AddressKey();
        return RateLimitPartition.GetTokenBucketLimiter((lane, caller), _ => BucketOf(LimitOf(lane)));
    }

    private LaneLimit LimitOf(Lane lane) => lane switch
    {
        Lane.Switchover => _options.Switchover,
        Lane.Reports => _options.Reports,
        Lane.Heartbeat => _options.Heartbeat,
        Lane.Anonymous => _options.Anonymous,
        _ => _options.Lists,
    };
}
