using System.Threading.RateLimiting;
using Fleet.Api.Startup;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Agents.Push;

/// <summary>
/// How many streams read what they open with at a time. After a restart all agents come at once, and each read costs a snapshot of
/// the store and the memory of a host's whole set. The others wait in the order in which they came.
/// </summary>
public sealed class SnapshotAdmission(IOptions<FleetOptions> options) : IDisposable
{
    private readonly ConcurrencyLimiter _limiter = new(new ConcurrencyLimiterOptions
    {
        PermitLimit = options.Value.SnapshotsAtOnce,
        QueueLimit = options.Value.SnapshotsWaiting,
        QueueProcessingOrder = QueueProcessingOrder.OldestFirst,
    });

    public long Waiting => _limiter.GetStatistics()!.CurrentQueuedCount;

    /// <summary>Waits for its turn; a lease that was not acquired means that too many wait already. Disposing it lets the next one in.</summary>
    public ValueTask<RateLimitLease> EnterAsync(CancellationToken cancellationToken) => _limiter.AcquireAsync(1, cancellationToken);

    public void Dispose() => _limiter.Dispose();
}
