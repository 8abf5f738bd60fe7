namespace Fleet.Api.Agents.Push;

/// <summary>
/// What ends a stream's writes: its connection, the server's end, or a client that does not read. The kernel tells of a dead peer only after many
/// minutes; a write that has not gone through within the limit is taken for that.
/// </summary>
internal sealed class WriteDeadline : IDisposable
{
    private readonly TimeSpan _limit;
    private readonly CancellationTokenSource _late;
    private readonly CancellationTokenSource _any;

    public WriteDeadline(TimeSpan limit, TimeProvider time, CancellationToken aborted, CancellationToken cut)
    {
        _limit = limit;
        _late = new CancellationTokenSource(Timeout.InfiniteTimeSpan, time);
        _any = CancellationTokenSource.CreateLinkedTokenSource(_late.Token, aborted, cut);
    }

    /// <summary>For everything that the stream does.</summary>
    public CancellationToken Token => _any.Token;

    public bool IsMissed => _late.IsCancellationRequested;

    /// <exception cref="OperationCanceledException">The client is gone, or has not read for too long.</exception>
    public async ValueTask FlushAsync(SseWriter writer)
    {
        var flush = writer.FlushAsync(Token);
        if (!flush.IsCompleted)
        {
            // No timer for the many that go through at once.
            _late.CancelAfter(_limit);
        }

        var isThere = await flush;
        _late.CancelAfter(Timeout.InfiniteTimeSpan);
        if (!isThere)
        {
            throw new OperationCanceledException("The client is gone.", Token);
        }
    }

    public void Dispose()
    {
        _any.Dispose();
        _late.Dispose();
    }
}
