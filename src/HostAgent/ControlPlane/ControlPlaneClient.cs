using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Security;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>The control plane's agent routes. Every call throws <see cref="ControlPlaneException"/> on a refusal and <see cref="HttpRequestException"/> when nobody answers, or something that is not the control plane.</summary>
public sealed class ControlPlaneClient(HttpClient http, string host)
{
    private const string Bearer = "Bearer";
    // The pages of one VM are the longest answer.
    private const long MostBytes = 256 << 20;
    private static readonly TimeSpan CallTimeout = TimeSpan.FromSeconds(30);

    private volatile AuthenticationHeaderValue? _credential;

    /// <summary>Sent as the bearer token from now on; requests under way keep the one before.</summary>
    public void UseCredential(string credential) => _credential = new AuthenticationHeaderValue(Bearer, credential);

    /// <summary>Registers the new credential, by the authority of the given one.</summary>
    public Task<RotateResult> RotateAsync(RotateRequest request, string authority, CancellationToken cancellationToken) =>
        PostAsync(
            Routes.Credential(host), request, FleetJson.Default.RotateRequest, FleetJson.Default.RotateResult, cancellationToken,
            new AuthenticationHeaderValue(Bearer, authority));

    public Task<EnrollResult> EnrollAsync(EnrollRequest request, CancellationToken cancellationToken) =>
        PostAsync(Routes.Enroll, request, FleetJson.Default.EnrollRequest, FleetJson.Default.EnrollResult, cancellationToken);

    public Task<ClaimResult> ClaimAsync(ClaimRequest request, CancellationToken cancellationToken) =>
        PostAsync(Routes.Claim(host), request, FleetJson.Default.ClaimRequest, FleetJson.Default.ClaimResult, cancellationToken);

    public Task<StatementResult> StateAsync(StatementRequest request, CancellationToken cancellationToken) =>
        PostAsync(Routes.Statement(host), request, FleetJson.Default.StatementRequest, FleetJson.Default.StatementResult, cancellationToken);

    public Task<HeartbeatResult> HeartbeatAsync(HeartbeatRequest request, CancellationToken cancellationToken) =>
        PostAsync(Routes.Heartbeat(host), request, FleetJson.Default.HeartbeatRequest, FleetJson.Default.HeartbeatResult, cancellationToken);

    public Task<ReportsResult> ReportAsync(ReportsRequest request, CancellationToken cancellationToken) =>
        PostAsync(Routes.Reports(host), request, FleetJson.Default.ReportsRequest, FleetJson.Default.ReportsResult, cancellationToken);

    /// <summary>One VM's desired state; null when it no longer concerns this host.</summary>
    public async Task<DesiredVm?> FetchAsync(string vm, CancellationToken cancellationToken)
    {
        using var timeout = Limit(cancellationToken);
        using var request = Request(HttpMethod.Get, Routes.DesiredVm(host, vm));
        using var response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, timeout.Token);
        try
        {
            return await ReadAsync(response, FleetJson.Default.DesiredVm, timeout.Token);
        }
        catch (ControlPlaneException exception) when (exception.Code == ControlPlaneException.UnknownVm)
        {
            // By the code, not by the 404: that may be another's page.
            return null;
        }
    }

    /// <summary>Opens the desired-state stream; the caller disposes the response.</summary>
    /// <param name="holds">What this host holds, as <see cref="DesiredDigest"/>; null to be sent a snapshot in any case.</param>
    public async Task<HttpResponseMessage> OpenDesiredAsync(long incarnation, string? holds, CancellationToken cancellationToken)
    {
        using var request = Request(HttpMethod.Get, Routes.Desired(host, incarnation, holds));
        request.Headers.Accept.Add(new MediaTypeWithQualityHeaderValue("text/event-stream"));
        using var timeout = Limit(cancellationToken);
        var response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, timeout.Token);
        if (response.IsSuccessStatusCode)
        {
            return response;
        }

        using (response)
        {
            throw await ToExceptionAsync(response, timeout.Token);
        }
    }

    private async Task<TResult> PostAsync<TRequest, TResult>(
        string route, TRequest body, JsonTypeInfo<TRequest> requestType, JsonTypeInfo<TResult> resultType, CancellationToken cancellationToken,
        AuthenticationHeaderValue? authority = null)
    {
        using var timeout = Limit(cancellationToken);
        using var request = Request(HttpMethod.Post, route);
        request.Headers.Authorization = authority ?? request.Headers.Authorization;
        request.Content = JsonContent.Create(body, requestType);
        using var response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, timeout.Token);
        return await ReadAsync(response, resultType, timeout.Token);
    }

    // Set on each request: the client's default headers must not change while requests are sent.
    private HttpRequestMessage Request(HttpMethod method, string route) =>
        new(method, route) { Headers = { Authorization = _credential } };

    private static async Task<T> ReadAsync<T>(HttpResponseMessage response, JsonTypeInfo<T> type, CancellationToken cancellationToken)
    {
        if (!response.IsSuccessStatusCode)
        {
            throw await ToExceptionAsync(response, cancellationToken);
        }

        try
        {
            return JsonSerializer.Deserialize(await ReadBytesAsync(response, cancellationToken), type)
                ?? throw new HttpRequestException("the control plane answered with an empty body");
        }
        catch (Exception exception) when (exception is JsonException or NotSupportedException or InvalidOperationException)
        {
            throw new HttpRequestException(
                $"the answer ({(int)response.StatusCode}, {response.Content.Headers.ContentType}) is not the control plane's: something between here and it answered", exception);
        }
    }

    private static async Task<ControlPlaneException> ToExceptionAsync(HttpResponseMessage response, CancellationToken cancellationToken)
    {
        ProblemBody? problem = null;
        try
        {
            problem = JsonSerializer.Deserialize(await ReadBytesAsync(response, cancellationToken), FleetJson.Default.ProblemBody);
        }
        catch (Exception exception) when (exception is JsonException or NotSupportedException or InvalidOperationException)
        {
            // Something between here and the control plane answered.
        }

        return new ControlPlaneException(response.StatusCode, problem?.Code ?? "unknown", problem?.Detail, response.Headers.RetryAfter?.Delta);
    }

    // As bytes: the control plane's JSON is UTF-8, whatever character set the answer of something else names.
    private static async Task<byte[]> ReadBytesAsync(HttpResponseMessage response, CancellationToken cancellationToken)
    {
        await response.Content.LoadIntoBufferAsync(MostBytes, cancellationToken);
        return await response.Content.ReadAsByteArrayAsync(cancellationToken);
    }

    private static CancellationTokenSource Limit(CancellationToken cancellationToken)
    {
        var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(CallTimeout);
        return limit;
    }
}
