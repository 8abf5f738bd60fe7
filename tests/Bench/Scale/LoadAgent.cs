using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Net.ServerSentEvents;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Security;

namespace Fleet.Bench.Scale;

/// <summary>The wire side of a host agent, with one VM: a real credential, claim, stream and heartbeats, and the real agent's manners when it is turned away.</summary>
/// <param name="calls">For everything but the stream.</param>
/// <param name="streams">One connection for each stream.</param>
internal sealed class LoadAgent(string host, HttpClient calls, HttpClient streams)
{
    private static readonly TimeSpan FirstBackoff = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan LongestBackoff = TimeSpan.FromSeconds(5);
    private AuthenticationHeaderValue? _credential;
    private ClaimResult? _claim;
    private DesiredVm? _held;

    public string Host => host;

    public string Vm => "vm-" + host;

    /// <summary>When the server asked last to come back.</summary>
    public TimeSpan Retry { get; private set; }

    /// <summary>A stream has said all that it opens with.</summary>
    public event Action<LoadAgent>? Opened;

    /// <summary>A change of the poisoned set has arrived.</summary>
    public event Action<LoadAgent>? Changed;

    /// <param name="joinToken">Of this host.</param>
    public async Task EnrolAsync(string joinToken, CancellationToken cancellationToken)
    {
        var credential = TokenText.Create();
        TokenText.TryGetId(credential, out var id);
        await PostAsync(Routes.Enroll, new EnrollRequest(host, joinToken, id, TokenText.Hash(credential)), FleetJson.Default.EnrollRequest, FleetJson.Default.EnrollResult, cancellationToken);
        _credential = new AuthenticationHeaderValue("Bearer", credential);
    }

    public async Task ClaimAsync(CancellationToken cancellationToken) => _claim = await PostAsync(
        Routes.Claim(host),
        new ClaimRequest("load", "load", "load", new Dictionary<string, string>(), 0, _claim?.Incarnation),
        FleetJson.Default.ClaimRequest, FleetJson.Default.ClaimResult, cancellationToken);

    /// <summary>Keeps the stream open until cancelled.</summary>
    public Task FollowAsync(CancellationToken cancellationToken) => KeepAsync(StreamAsync, cancellationToken);

    /// <summary>Sends heartbeats until cancelled, beginning at some moment of the first interval.</summary>
    public async Task BeatAsync(CancellationToken cancellationToken)
    {
        await Task.Delay(Interval(_claim!.HeartbeatInterval) * Random.Shared.NextDouble(), cancellationToken); // allowed: a load's pace
        await KeepAsync(HeartbeatAsync, cancellationToken);
    }

    private async Task<TimeSpan?> HeartbeatAsync(CancellationToken cancellationToken)
    {
        IReadOnlyList<VmStatus> statuses = _held is { } vm
            ? [new VmStatus(vm.Vm, vm.MemoryInstance, vm.Generation, vm.Generation, vm.Digest, "armed", null, [])]
            : [];
        var answer = await PostAsync(
            Routes.Heartbeat(host), new HeartbeatRequest(_claim!.Incarnation, statuses), FleetJson.Default.HeartbeatRequest, FleetJson.Default.HeartbeatResult, cancellationToken);
        return Interval(answer.HeartbeatInterval);
    }

    private async Task<TimeSpan?> StreamAsync(CancellationToken cancellationToken)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, Routes.Desired(host, _claim!.Incarnation, _held is null ? null : DesiredDigest.Compute([_held])));
        request.Headers.Authorization = _credential;
        using var response = await streams.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellationToken);
        await EnsureAsync(response, cancellationToken);
        await using var body = await response.Content.ReadAsStreamAsync(cancellationToken);
        var parser = SseParser.Create(body);
        await foreach (var item in parser.EnumerateAsync(cancellationToken))
        {
            Take(item);
        }

        return Retry = parser.ReconnectionInterval;
    }

    private void Take(SseItem<string> item)
    {
        switch (item.EventType)
        {
            case DesiredEvents.Vm:
                _held = JsonSerializer.Deserialize(item.Data, FleetJson.Default.DesiredVm);
                break;
            case DesiredEvents.Delta:
                var delta = JsonSerializer.Deserialize(item.Data, FleetJson.Default.DesiredDelta)!;
                if (delta.From != _held!.Generation || delta.Cleared.Count > 0)
                {
                    throw new InvalidDataException("a delta that does not follow from what is held");
                }

                _held = _held with { Generation = delta.Generation, Digest = delta.Digest, Pages = [.. _held.Pages.Concat(delta.Added).OrderBy(page => page.Frame)] };
                Changed?.Invoke(this);
                break;
            case DesiredEvents.SnapshotEnd or DesiredEvents.Unchanged:
                Opened?.Invoke(this);
                break;
        }
    }

    /// <summary>Again and again, with the pause that was asked for, or with a growing one where nobody answers.</summary>
    private static async Task KeepAsync(Func<CancellationToken, Task<TimeSpan?>> run, CancellationToken cancellationToken)
    {
        var backoff = FirstBackoff;
        while (!cancellationToken.IsCancellationRequested)
        {
            TimeSpan pause;
            try
            {
                pause = await run(cancellationToken) ?? FirstBackoff;
                backoff = FirstBackoff;
            }
            catch (Exception exception) when (exception is HttpRequestException or IOException)
            {
                pause = exception is TurnedAwayException { RetryAfter: { } asked } ? asked : backoff * (0.5 + (Random.Shared.NextDouble() / 2));
                backoff = backoff * 2 < LongestBackoff ? backoff * 2 : LongestBackoff;
            }

            await Task.Delay(pause, cancellationToken); // allowed: backoff
        }
    }

    private async Task<TResult> PostAsync<TRequest, TResult>(
        string route, TRequest body, JsonTypeInfo<TRequest> requestType, JsonTypeInfo<TResult> resultType, CancellationToken cancellationToken)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, route) { Content = JsonContent.Create(body, requestType) };
        request.Headers.Authorization = _credential;
        using var response = await calls.SendAsync(request, cancellationToken);
        await EnsureAsync(response, cancellationToken);
        return (await response.Content.ReadFromJsonAsync(resultType, cancellationToken))!;
    }

    private static async Task EnsureAsync(HttpResponseMessage response, CancellationToken cancellationToken)
    {
        if (!response.IsSuccessStatusCode)
        {
            throw new TurnedAwayException(response.StatusCode, await response.Content.ReadAsStringAsync(cancellationToken), response.Headers.RetryAfter?.Delta);
        }
    }

    private static TimeSpan Interval(string text) => DurationText.TryParse(text, out var interval) ? interval : throw new InvalidDataException(text);

    private sealed class TurnedAwayException(HttpStatusCode status, string body, TimeSpan? retryAfter) : HttpRequestException($"{(int)status}: {body}", null, status)
    {
        public TimeSpan? RetryAfter { get; } = retryAfter;
    }
}
