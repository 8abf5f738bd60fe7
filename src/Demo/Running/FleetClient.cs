using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.Json.Serialization.Metadata;
using Fleet.Contracts;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Hosts;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Security;
using Fleet.Contracts.Vms;

namespace Fleet.Demo.Running;

/// <summary>The control plane as an orchestrator calls it.</summary>
public sealed class FleetClient : IDisposable
{
    private readonly HttpClient _http;

    public FleetClient(Uri address, string? token)
    {
        _http = new HttpClient { BaseAddress = address, Timeout = TimeSpan.FromSeconds(100) };
        if (token is not null)
        {
            _http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", token);
        }
    }

    public HttpClient Http => _http;

    public Task<JoinTokenCreated> CreateJoinTokenAsync(string host, CancellationToken cancellationToken) =>
        PostAsync(Routes.JoinTokens, new JoinTokenRequest(host), FleetJson.Default.JoinTokenRequest, FleetJson.Default.JoinTokenCreated, cancellationToken);

    public async Task<VmResource> PutVmAsync(string vm, VmRequest request, CancellationToken cancellationToken)
    {
        using var response = await _http.PutAsJsonAsync(Routes.Vm(vm), request, FleetJson.Default.VmRequest, cancellationToken);
        return await ReadAsync(response, FleetJson.Default.VmResource, cancellationToken);
    }

    /// <param name="wait">Waits so long at most, until the VM's host confirmed the present generation.</param>
    public Task<VmResource> GetVmAsync(string vm, TimeSpan? wait, CancellationToken cancellationToken) =>
        GetAsync(wait is { } time ? $"{Routes.Vm(vm)}?wait={DurationText.Format(time)}" : Routes.Vm(vm), FleetJson.Default.VmResource, cancellationToken);

    public Task<PageList> GetPagesAsync(string vm, CancellationToken cancellationToken) =>
        GetAsync(Routes.Pages(vm), FleetJson.Default.PageList, cancellationToken);

    public Task<AddPagesResult> AddPagesAsync(string vm, AddPagesRequest request, CancellationToken cancellationToken) =>
        PostAsync(Routes.Pages(vm), request, FleetJson.Default.AddPagesRequest, FleetJson.Default.AddPagesResult, cancellationToken);

    public async Task ClearPageAsync(string vm, long frame, string reason, CancellationToken cancellationToken)
    {
        using var response = await _http.DeleteAsync(new Uri($"{Routes.Page(vm, frame)}?reason={Uri.EscapeDataString(reason)}", UriKind.Relative), cancellationToken);
        await EnsureAsync(response, cancellationToken);
    }

    public Task<HostResource> GetHostAsync(string host, CancellationToken cancellationToken) =>
        GetAsync(Routes.Host(host), FleetJson.Default.HostResource, cancellationToken);

    /// <param name="after">Cursor of the page before; null for the first.</param>
    public Task<ItemList<HitResource>> GetHitsAsync(string vm, CancellationToken cancellationToken, string? after = null) =>
        GetAsync($"{Routes.Hits}?vm={vm}&limit=1000{(after is null ? string.Empty : $"&after={Uri.EscapeDataString(after)}")}", FleetJson.Default.ItemListHitResource, cancellationToken);

    public async Task<MigrationResource> PutMigrationAsync(string migration, MigrationRequest request, CancellationToken cancellationToken)
    {
        using var response = await _http.PutAsJsonAsync(Routes.Migration(migration), request, FleetJson.Default.MigrationRequest, cancellationToken);
        return await ReadAsync(response, FleetJson.Default.MigrationResource, cancellationToken);
    }

    public Task<MigrationResource> GetMigrationAsync(string migration, CancellationToken cancellationToken) =>
        GetAsync(Routes.Migration(migration), FleetJson.Default.MigrationResource, cancellationToken);

    /// <summary>Asks for the permit, once.</summary>
    /// <param name="sourceFenced">Why the source is known to be dead, where the override is meant; null otherwise.</param>
    /// <returns>Null while the migration still switches (202).</returns>
    public async Task<Permit?> SwitchoverAsync(string migration, TimeSpan wait, CancellationToken cancellationToken, string? sourceFenced = null)
    {
        using var response = await _http.PostAsJsonAsync(
            $"{Routes.Switchover(migration)}?wait={DurationText.Format(wait)}",
            new SwitchoverRequest(sourceFenced is not null, sourceFenced), FleetJson.Default.SwitchoverRequest, cancellationToken);
        return response.StatusCode == HttpStatusCode.Accepted ? null : await ReadAsync(response, FleetJson.Default.Permit, cancellationToken);
    }

    /// <returns>False while the target's agent has not reported that the guest runs (409 not-lifted).</returns>
    public async Task<bool> CompleteAsync(string migration, CancellationToken cancellationToken)
    {
        using var response = await _http.PostAsync(new Uri(Routes.Complete(migration), UriKind.Relative), null, cancellationToken);
        if (response.StatusCode == HttpStatusCode.Conflict)
        {
            return false;
        }

        await EnsureAsync(response, cancellationToken);
        return true;
    }

    public async Task<HttpStatusCode> AbortAsync(string migration, string reason, CancellationToken cancellationToken, bool targetFenced = false)
    {
        using var response = await _http.PostAsJsonAsync(Routes.Abort(migration), new AbortRequest(reason, targetFenced), FleetJson.Default.AbortRequest, cancellationToken);
        await EnsureAsync(response, cancellationToken);
        return response.StatusCode;
    }

    public Task<VmResource> ResetAsync(string vm, string reason, CancellationToken cancellationToken) =>
        PostAsync(Routes.Reset(vm), new ResetRequest(reason), FleetJson.Default.ResetRequest, FleetJson.Default.VmResource, cancellationToken);

    public Task<VmResource> RebuildAsync(string vm, string host, string reason, CancellationToken cancellationToken) =>
        PostAsync(Routes.Rebuild(vm), new RebuildRequest(host, reason), FleetJson.Default.RebuildRequest, FleetJson.Default.VmResource, cancellationToken);

    public async Task<bool> IsReadyAsync(CancellationToken cancellationToken)
    {
        try
        {
            using var response = await _http.GetAsync(new Uri("/health/ready", UriKind.Relative), cancellationToken);
            return response.StatusCode == HttpStatusCode.OK;
        }
        catch (HttpRequestException)
        {
            return false;
        }
    }

    public void Dispose() => _http.Dispose();

    private async Task<T> GetAsync<T>(string route, JsonTypeInfo<T> type, CancellationToken cancellationToken)
    {
        using var response = await _http.GetAsync(new Uri(route, UriKind.Relative), cancellationToken);
        return await ReadAsync(response, type, cancellationToken);
    }

    private async Task<TResult> PostAsync<TRequest, TResult>(
        string route, TRequest body, JsonTypeInfo<TRequest> requestType, JsonTypeInfo<TResult> resultType, CancellationToken cancellationToken)
    {
        using var response = await _http.PostAsJsonAsync(route, body, requestType, cancellationToken);
        return await ReadAsync(response, resultType, cancellationToken);
    }

    private static async Task<T> ReadAsync<T>(HttpResponseMessage response, JsonTypeInfo<T> type, CancellationToken cancellationToken)
    {
        await EnsureAsync(response, cancellationToken);
        return await response.Content.ReadFromJsonAsync(type, cancellationToken)
            ?? throw new HttpRequestException("the control plane answered with an empty body");
    }

    private static async Task EnsureAsync(HttpResponseMessage response, CancellationToken cancellationToken)
    {
        if (!response.IsSuccessStatusCode)
        {
            var body = await response.Content.ReadAsStringAsync(cancellationToken);
            throw new HttpRequestException(string.Create(
                CultureInfo.InvariantCulture, $"{response.RequestMessage?.Method} {response.RequestMessage?.RequestUri?.PathAndQuery}: {(int)response.StatusCode} {body}"));
        }
    }
}
