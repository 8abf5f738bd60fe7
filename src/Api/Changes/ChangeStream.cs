using System.Security.Claims;
using Fleet.Api.Agents;
using Fleet.Api.Agents.Push;
using Fleet.Api.Lists;
using Fleet.Api.Problems;
using Fleet.Api.Security;
using Fleet.Api.Startup;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Changes;
using Fleet.Data.Writing;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Changes;

/// <summary>Wakes the change feed's readers after each commit.</summary>
public sealed class ChangeSignal : ICommitObserver
{
    public Pulse Committed { get; } = new();

    void ICommitObserver.Committed(long revision, IReadOnlyCollection<Touched> touched) => Committed.Set();
}

/// <summary>
/// Sends the change log as it grows. Always read from the log behind what was sent, so a slow reader costs a connection and no
/// memory; one that the compaction overtakes is cut off, and learns it when it comes back.
/// </summary>
public sealed class ChangeStream(
    ChangeReader reader, ChangeSignal signal, CredentialStreams streams, TimeProvider time, IHostApplicationLifetime lifetime, IOptions<FleetOptions> options)
{
    private const int Chunk = 200;

    /// <param name="first">The first read, which told that the reader can go on from <paramref name="sent"/>.</param>
    public async Task RunAsync(HttpContext http, long sent, ChangePage first, ChangeFilter filter)
    {
        using var held = streams.Hold(http.User.Actor());
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(http.RequestAborted, lifetime.ApplicationStopping, held.Ended);
        if (await streams.IsRevokedAsync(http.User.Actor(), http.RequestAborted))
        {
            // Since it was authenticated.
            await new Problem(ProblemTypes.Unauthenticated).WriteAsync(http);
            return;
        }

        http.Response.ContentType = "text/event-stream";
        http.Response.Headers.CacheControl = "no-store";
        try
        {
            using var writer = new SseWriter(http.Response.BodyWriter);
            await RunAsync(writer, sent, first, filter, EndOf(http.User), stop.Token);
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            // The reader went away or may read no more, or the server stops.
        }
    }

    private async Task RunAsync(SseWriter writer, long sent, ChangePage first, ChangeFilter filter, DateTimeOffset end, CancellationToken cancellationToken)
    {
        writer.Retry(Jitter.Of(TimeSpan.FromSeconds(2)));
        // The first bookmark comes at once: it tells the reader where it stands.
        var bookmarkAt = time.GetUtcNow();
        var page = first;
        while (page is not null && time.GetUtcNow() < end)
        {
            foreach (var change in page.Rows)
            {
                writer.Write(new FeedItem(ChangeEvents.Change, change.Revision, change));
                sent = change.Revision;
            }

            if (page.IsWhole)
            {
                // Nothing that matches lies between: the place in the log moves on without an event.
                sent = page.Newest;
                if (time.GetUtcNow() >= bookmarkAt)
                {
                    writer.Write(new FeedItem(ChangeEvents.Bookmark, sent, new Bookmark(sent)));
                    bookmarkAt = time.GetUtcNow() + Jitter.Of(options.Value.BookmarkInterval);
                }
            }

            if (!await writer.FlushAsync(cancellationToken))
            {
                return;
            }

            page = await NextAsync(page, sent, bookmarkAt < end ? bookmarkAt : end, filter, cancellationToken);
        }
    }

    /// <summary>No later than the right to read.</summary>
    private DateTimeOffset EndOf(ClaimsPrincipal user)
    {
        var end = time.GetUtcNow() + Jitter.Of(options.Value.StreamLifetime);
        return user.ExpiresAt() is { } expires && expires < end.ToUnixTimeMilliseconds() ? expires.ToTime() : end;
    }

    private async Task<ChangePage?> NextAsync(ChangePage page, long sent, DateTimeOffset until, ChangeFilter filter, CancellationToken cancellationToken)
    {
        // Taken before the log is read: what commits after that wakes the wait.
        var committed = signal.Committed.Next;
        var next = await reader.ReadAsync(sent, filter, Chunk, cancellationToken);
        if (!page.IsWhole || next is null or { Rows.Count: > 0 })
        {
            return next;
        }

        await Waiting.ForAsync(committed, until - time.GetUtcNow(), time, cancellationToken);
        return await reader.ReadAsync(sent, filter, Chunk, cancellationToken);
    }
}
