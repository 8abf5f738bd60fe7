using System.Diagnostics;
using Fleet.Api.Metrics;
using Fleet.Api.Startup;
using Fleet.Contracts.Agents;
using Fleet.Data.Storage;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Agents.Push;

/// <summary>Runs one subscriber's stream: snapshot, then deltas as they come, bookmarks in between.</summary>
public sealed class DesiredStream(
    PushHub hub,
    StoreContexts contexts,
    DesiredReader reader,
    TimeProvider time,
    IHostApplicationLifetime lifetime,
    IOptions<FleetOptions> options,
    ILogger<DesiredStream> logger)
{
    public async Task RunAsync(Subscriber subscriber, HttpContext http)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(http.RequestAborted, lifetime.ApplicationStopping);
        FleetMetrics.Streams.Add(1);
        try
        {
            using var writer = new SseWriter(http.Response.BodyWriter);
            await RunAsync(subscriber, writer, stop.Token);
            AgentLog.StreamEnded(logger, subscriber.Host, subscriber.Incarnation, subscriber.Ended ?? "lifetime");
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            AgentLog.StreamEnded(logger, subscriber.Host, subscriber.Incarnation, "closed");
        }
        finally
        {
            FleetMetrics.Streams.Add(-1);
        }
    }

    private async Task RunAsync(Subscriber subscriber, SseWriter writer, CancellationToken cancellationToken)
    {
        var feed = new DesiredFeed(subscriber, contexts, reader);
        writer.Retry(Jitter.Of(TimeSpan.FromSeconds(2)));
        var sent = await WriteAsync(writer, await feed.SnapshotAsync(cancellationToken), 0, cancellationToken);

        var end = time.GetUtcNow() + Jitter.Of(options.Value.StreamLifetime);
        var bookmarkAt = time.GetUtcNow() + Jitter.Of(options.Value.BookmarkInterval);
        while (subscriber.Ended is null && time.GetUtcNow() < end)
        {
            // In this order: what commits after these two lines wakes the wait below, or is not claimed by the bookmark.
            var next = subscriber.Next;
            var known = hub.Revision;
            sent = await WriteAsync(writer, await feed.NextAsync(cancellationToken), sent, cancellationToken);
            if (subscriber.TakenSince is { } since)
            {
                FleetMetrics.PushLag.Record(Stopwatch.GetElapsedTime(since).TotalSeconds);
            }

            if (time.GetUtcNow() >= bookmarkAt)
            {
                sent = Math.Max(sent, known);
                writer.Write(new FeedItem(DesiredEvents.Bookmark, sent, new Bookmark(sent)));
                await FlushAsync(writer, cancellationToken);
                bookmarkAt = time.GetUtcNow() + Jitter.Of(options.Value.BookmarkInterval);
            }

            await Waiting.ForAsync(next, bookmarkAt - time.GetUtcNow(), time, cancellationToken);
        }
    }

    private static async Task<long> WriteAsync(SseWriter writer, IReadOnlyList<FeedItem> items, long sent, CancellationToken cancellationToken)
    {
        foreach (var item in items)
        {
            writer.Write(item);
            sent = item.Revision;
            await FlushAsync(writer, cancellationToken);
        }

        return sent;
    }

    private static async Task FlushAsync(SseWriter writer, CancellationToken cancellationToken)
    {
        if (!await writer.FlushAsync(cancellationToken))
        {
            throw new OperationCanceledException("The client is gone.", cancellationToken);
        }
    }
}
