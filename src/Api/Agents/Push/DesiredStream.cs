using System.Diagnostics;
using System.Globalization;
using Fleet.Api.Metrics;
using Fleet.Api.Problems;
using Fleet.Api.Startup;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Data.Storage;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Agents.Push;

/// <summary>Runs one subscriber's stream: what it opens with, then deltas as they come, bookmarks in between.</summary>
public sealed class DesiredStream(
    PushHub hub,
    StoreContexts contexts,
    DesiredReader reader,
    SnapshotAdmission admission,
    StreamShutdown shutdown,
    TimeProvider time,
    IOptions<FleetOptions> options,
    ILogger<DesiredStream> logger)
{
    /// <param name="holds">What the agent says to hold; null where it does not say.</param>
    public async Task RunAsync(Subscriber subscriber, string? holds, HttpContext http)
    {
        using var deadline = new WriteDeadline(options.Value.WriteDeadline, time, http.RequestAborted, shutdown.Cut);
        if (shutdown.IsStopping)
        {
            // Subscribed after the others were ended.
            subscriber.End(StreamEnds.Stopping);
        }

        FleetMetrics.Streams.Add(1);
        var why = StreamEnds.Closed;
        try
        {
            why = await RunAsync(subscriber, holds, http, deadline);
        }
        catch (OperationCanceledException) when (deadline.Token.IsCancellationRequested)
        {
            why = deadline.IsMissed ? StreamEnds.Stalled : subscriber.Ended ?? StreamEnds.Closed;
            http.Abort();
        }
        finally
        {
            FleetMetrics.Streams.Add(-1);
            FleetMetrics.StreamsEnded.Add(1, new KeyValuePair<string, object?>("why", why));
            AgentLog.StreamEnded(logger, subscriber.Host, subscriber.Incarnation, why);
        }
    }

    private async Task<string> RunAsync(Subscriber subscriber, string? holds, HttpContext http, WriteDeadline deadline)
    {
        var feed = new DesiredFeed(subscriber, contexts, reader);
        if (await OpenAsync(feed, holds, deadline.Token) is not { } opening)
        {
            http.Response.Headers.RetryAfter = Math.Ceiling(Stagger.Draw(Stagger.Window(hub.Count, options.Value.ReconnectsPerSecond)).TotalSeconds).ToString(CultureInfo.InvariantCulture);
            await new Problem(ProblemTypes.SnapshotsBusy).WriteAsync(http);
            return ProblemTypes.SnapshotsBusy.Code;
        }

        http.Response.ContentType = "text/event-stream";
        http.Response.Headers.CacheControl = "no-store";
        http.Response.Headers[Routes.BookmarkInterval] = DurationText.Format(options.Value.BookmarkInterval);
        using var writer = new SseWriter(http.Response.BodyWriter);
        writer.Retry(Jitter.Of(TimeSpan.FromSeconds(2)));
        var sent = await WriteAsync(writer, opening, 0, deadline);
        await FollowAsync(subscriber, feed, writer, sent, deadline);
        if (subscriber.Ended == StreamEnds.Stopping)
        {
            writer.Retry(shutdown.DrawPause());
            await deadline.FlushAsync(writer);
        }

        return subscriber.Ended ?? StreamEnds.Lifetime;
    }

    /// <returns>Null where too many streams wait for theirs.</returns>
    private async Task<IReadOnlyList<FeedItem>?> OpenAsync(DesiredFeed feed, string? holds, CancellationToken cancellationToken)
    {
        using var lease = await admission.EnterAsync(cancellationToken);
        var opening = lease.IsAcquired ? await feed.OpenAsync(holds, cancellationToken) : null;
        var kind = opening is null ? "refused" : opening[0].Event == DesiredEvents.Unchanged ? "unchanged" : "snapshot";
        FleetMetrics.Openings.Add(1, new KeyValuePair<string, object?>("kind", kind));
        return opening;
    }

    private async Task FollowAsync(Subscriber subscriber, DesiredFeed feed, SseWriter writer, long sent, WriteDeadline deadline)
    {
        var end = time.GetUtcNow() + Jitter.Of(options.Value.StreamLifetime);
        var bookmarkAt = time.GetUtcNow() + Jitter.Of(options.Value.BookmarkInterval);
        while (subscriber.Ended is null && time.GetUtcNow() < end)
        {
            // In this order: what commits after these two lines wakes the wait below, or is not claimed by the bookmark.
            var next = subscriber.Next;
            var known = hub.Revision;
            sent = await WriteAsync(writer, await feed.NextAsync(deadline.Token), sent, deadline);
            if (subscriber.TakenSince is { } since)
            {
                FleetMetrics.PushLag.Record(Stopwatch.GetElapsedTime(since).TotalSeconds);
            }

            if (time.GetUtcNow() >= bookmarkAt)
            {
                sent = Math.Max(sent, known);
                writer.Write(new FeedItem(DesiredEvents.Bookmark, sent, new Bookmark(sent)));
                await deadline.FlushAsync(writer);
                bookmarkAt = time.GetUtcNow() + Jitter.Of(options.Value.BookmarkInterval);
            }

            if (subscriber.Ended is null)
            {
                await Waiting.ForAsync(next, bookmarkAt - time.GetUtcNow(), time, deadline.Token);
            }
        }
    }

    private static async Task<long> WriteAsync(SseWriter writer, IReadOnlyList<FeedItem> items, long sent, WriteDeadline deadline)
    {
        foreach (var item in items)
        {
            writer.Write(item);
            sent = item.Revision;
            await deadline.FlushAsync(writer);
        }

        return sent;
    }
}
