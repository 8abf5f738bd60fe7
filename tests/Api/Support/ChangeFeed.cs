using System.Net.Http.Headers;
using System.Net.ServerSentEvents;
using System.Runtime.CompilerServices;
using System.Text.Json;
using Fleet.Contracts;
using Fleet.Contracts.Changes;

namespace Fleet.Api.Tests.Support;

/// <summary>A reader of GET /v1/changes that goes on from where it was, as the contract tells a client to.</summary>
public sealed class ChangeFeed(long last)
{
    /// <summary>Id of the last event, a bookmark's too.</summary>
    public long Last { get; private set; } = last;

    /// <summary>Revisions of the changes that came, in the order in which they came.</summary>
    public List<ChangeResource> Changes { get; } = [];

    /// <summary>One connection; each event as it comes.</summary>
    public async IAsyncEnumerable<SseItem<string>> FollowAsync(HttpClient client, string query = "", [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, Routes.Changes + query);
        request.Headers.Accept.Add(new MediaTypeWithQualityHeaderValue("text/event-stream"));
        request.Headers.Add("Last-Event-ID", $"{Last}");
        using var response = await client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellationToken);
        Assert.True(response.IsSuccessStatusCode, $"{response.StatusCode}");
        await using var body = await response.Content.ReadAsStreamAsync(cancellationToken);
        await foreach (var item in SseParser.Create(body).EnumerateAsync(cancellationToken))
        {
            var id = long.Parse(item.EventId!, System.Globalization.CultureInfo.InvariantCulture);
            Assert.True(id >= Last, $"Event {id} after {Last}.");
            Last = id;
            if (item.EventType == ChangeEvents.Change)
            {
                var change = JsonSerializer.Deserialize(item.Data, FleetJson.Default.ChangeResource)!;
                Assert.Equal(id, change.Revision);
                Changes.Add(change);
            }

            yield return item;
        }
    }
}
