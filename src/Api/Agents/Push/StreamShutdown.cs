using Fleet.Api.Startup;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Agents.Push;

/// <summary>
/// Ends all streams when the server stops. Each is told when to come back, over a window that grows with their number; one that cannot
/// be told within two seconds, because its client does not read, is cut off.
/// </summary>
public sealed class StreamShutdown : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);
    private readonly CancellationTokenSource _cut;
    private readonly CancellationTokenRegistration _stopping;
    private readonly CancellationToken _applicationStopping;
    private long _windowTicks;

    public StreamShutdown(PushHub hub, IHostApplicationLifetime lifetime, IOptions<FleetOptions> options, TimeProvider time, ILogger<StreamShutdown> logger)
    {
        _cut = new CancellationTokenSource(Timeout.InfiniteTimeSpan, time);
        _applicationStopping = lifetime.ApplicationStopping;
        _stopping = lifetime.ApplicationStopping.Register(() =>
        {
            var window = Stagger.Window(hub.Count, options.Value.ReconnectsPerSecond);
            Volatile.Write(ref _windowTicks, window.Ticks);
            AgentLog.StreamsStopping(logger, hub.Count, window.TotalSeconds);
            _cut.CancelAfter(Patience);
            hub.EndAll(StreamEnds.Stopping);
        });
    }

    /// <summary>Cancelled when a stream must end as it is.</summary>
    public CancellationToken Cut => _cut.Token;

    public bool IsStopping => _applicationStopping.IsCancellationRequested;

    /// <summary>When the agent of one stream is to come back.</summary>
    public TimeSpan DrawPause() => Stagger.Draw(TimeSpan.FromTicks(Volatile.Read(ref _windowTicks)));

    public void Dispose()
    {
        _stopping.Dispose();
        _cut.Dispose();
    }
}

/// <summary>Why streams end, as metrics and logs name it.</summary>
public static class StreamEnds
{
    public const string Stopping = "stopping";
    public const string Lifetime = "lifetime";
    public const string Closed = "closed";

    /// <summary>The client did not take what was written within the deadline.</summary>
    public const string Stalled = "stalled";
}
