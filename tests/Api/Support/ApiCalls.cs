using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Security;
using Fleet.Contracts.Vms;

namespace Fleet.Api.Tests.Support;

/// <summary>What tests ask of the API, in few words.</summary>
public static class ApiCalls
{
    public static readonly MemoryRegion[] Memory64MiB = [new("0x0", 64 << 20, 4096)];

    public static async Task<T> ReadAsync<T>(this HttpResponseMessage response, JsonTypeInfo<T> type)
    {
        var text = await response.Content.ReadAsStringAsync();
        Assert.True(response.IsSuccessStatusCode, $"{(int)response.StatusCode}: {text}");
        return JsonSerializer.Deserialize(text, type)!;
    }

    public static async Task<JsonElement> ProblemAsync(this HttpResponseMessage response, HttpStatusCode status, string code)
    {
        var text = await response.Content.ReadAsStringAsync();
        Assert.True(response.StatusCode == status, $"Expected {(int)status} {code}, was {(int)response.StatusCode}: {text}");
        Assert.Equal("application/problem+json", response.Content.Headers.ContentType?.MediaType);
        var problem = JsonDocument.Parse(text).RootElement;
        Assert.Equal(code, problem.GetProperty("code").GetString());
        return problem;
    }

    public static Task<HttpResponseMessage> SendJsonAsync(this HttpClient client, HttpMethod method, string path, string json) =>
        client.SendAsync(new HttpRequestMessage(method, path) { Content = new StringContent(json, Encoding.UTF8, "application/json") });

    public static async Task<string> JoinTokenAsync(this HttpClient client, string host) =>
        (await (await client.PostAsJsonAsync(Routes.JoinTokens, new JoinTokenRequest(host), FleetJson.Default.JoinTokenRequest))
            .ReadAsync(FleetJson.Default.JoinTokenCreated)).Token;

    public static Task<HttpResponseMessage> PutVmAsync(this HttpClient client, string vm, string? host, MemoryRegion[]? memory = null) =>
        client.PutAsJsonAsync(Routes.Vm(vm), new VmRequest(host, memory ?? Memory64MiB, new VmAttach("handoff")), FleetJson.Default.VmRequest);

    public static async Task<VmResource> CreateVmAsync(this HttpClient client, string vm, string? host, MemoryRegion[]? memory = null) =>
        await (await client.PutVmAsync(vm, host, memory)).ReadAsync(FleetJson.Default.VmResource);

    public static async Task<VmResource> GetVmAsync(this HttpClient client, string vm, string query = "") =>
        await (await client.GetAsync(Routes.Vm(vm) + query)).ReadAsync(FleetJson.Default.VmResource);

    public static Task<HttpResponseMessage> PostPagesAsync(this HttpClient client, string vm, params PageReport[] pages) =>
        client.PostAsJsonAsync(Routes.Pages(vm), new AddPagesRequest(pages, null), FleetJson.Default.AddPagesRequest);

    public static async Task<AddPagesResult> AddPagesAsync(this HttpClient client, string vm, params PageReport[] pages) =>
        await (await client.PostPagesAsync(vm, pages)).ReadAsync(FleetJson.Default.AddPagesResult);

    public static async Task<PageList> GetPagesAsync(this HttpClient client, string vm, string query = "?limit=1000") =>
        await (await client.GetAsync(Routes.Pages(vm) + query)).ReadAsync(FleetJson.Default.PageList);

    /// <summary>Enrols an agent for the host; the host is made known on the way.</summary>
    public static async Task<TestAgent> EnrolAsync(this ApiHost api, string host)
    {
        var join = await api.Admin.JoinTokenAsync(host);
        var credential = TokenText.Create();
        Assert.True(TokenText.TryGetId(credential, out var id));
        var response = await api.Client(null).PostAsJsonAsync(
            Routes.Enroll, new EnrollRequest(host, join, id, TokenText.Hash(credential)), FleetJson.Default.EnrollRequest);
        await response.ReadAsync(FleetJson.Default.EnrollResult);
        return new TestAgent(host, api.Client(credential)) { Credential = credential };
    }
}

/// <summary>The wire side of a host agent.</summary>
public sealed class TestAgent(string host, HttpClient client)
{
    public string Host { get; } = host;

    public HttpClient Client { get; } = client;

    public string Credential { get; init; } = string.Empty;

    public long Incarnation { get; private set; }

    public ClaimResult Claim { get; private set; } = null!;

    public string SpoolId { get; set; } = Guid.NewGuid().ToString("N");

    /// <summary>The same agent process, talking to the control plane that runs now.</summary>
    public TestAgent MoveTo(ApiHost api) => new(Host, api.Client(Credential)) { Credential = Credential, Incarnation = Incarnation, SpoolId = SpoolId };

    public async Task<TestAgent> ClaimAsync(long highestSeen = 0, long? lastIncarnation = null, string boot = "boot", SpoolPosition? spool = null)
    {
        Claim = await (await SendClaimAsync(highestSeen, lastIncarnation, boot, spool)).ReadAsync(FleetJson.Default.ClaimResult);
        Incarnation = Claim.Incarnation;
        return this;
    }

    public Task<HttpResponseMessage> SendClaimAsync(long highestSeen = 0, long? lastIncarnation = null, string boot = "boot", SpoolPosition? spool = null) => Client.PostAsJsonAsync(
        Routes.Claim(Host),
        new ClaimRequest(
            boot, "0.1.0", "6.18", new Dictionary<string, string> { ["uffd.poison"] = "yes", ["policy.marker.memfd"] = "yes" }, highestSeen, lastIncarnation, spool),
        FleetJson.Default.ClaimRequest);

    /// <summary>In the store epoch of the last claim.</summary>
    public Task<HttpResponseMessage> SendStatementAsync(params VmStatement[] vms) => SendStatementAsync(null, vms);

    public Task<HttpResponseMessage> SendStatementAsync(SpoolPosition? spool, params VmStatement[] vms) =>
        Client.PostAsJsonAsync(Routes.Statement(Host), new StatementRequest(Incarnation, Claim.StoreEpoch, vms, spool), FleetJson.Default.StatementRequest);

    public async Task StateAsync(params VmStatement[] vms) => await (await SendStatementAsync(vms)).ReadAsync(FleetJson.Default.StatementResult);

    public Task<HttpResponseMessage> BeatAsync(params VmStatus[] vms) =>
        Client.PostAsJsonAsync(Routes.Heartbeat(Host), new HeartbeatRequest(Incarnation, vms), FleetJson.Default.HeartbeatRequest);

    public Task<HttpResponseMessage> BeatAsync(long unreportedHits) =>
        Client.PostAsJsonAsync(Routes.Heartbeat(Host), new HeartbeatRequest(Incarnation, [], unreportedHits), FleetJson.Default.HeartbeatRequest);

    public async Task<DesiredVm> DesiredAsync(string vm) =>
        await (await Client.GetAsync(Routes.DesiredVm(Host, vm))).ReadAsync(FleetJson.Default.DesiredVm);

    /// <summary>Says what an agent says that has armed exactly what is desired.</summary>
    public async Task<HttpResponseMessage> ArmAsync(string vm, params PageException[] exceptions)
    {
        var desired = await DesiredAsync(vm);
        return await BeatAsync(new VmStatus(
            vm, desired.MemoryInstance, desired.Generation, desired.Generation, desired.Digest, "armed", null, exceptions));
    }

    public Task<HttpResponseMessage> SendAsync(params AgentReport[] reports) =>
        Client.PostAsJsonAsync(Routes.Reports(Host), new ReportsRequest(Incarnation, SpoolId, reports), FleetJson.Default.ReportsRequest);

    public async Task<ReportsResult> ReportAsync(params AgentReport[] reports) =>
        await (await SendAsync(reports)).ReadAsync(FleetJson.Default.ReportsResult);

    public static AgentReport Poison(long sequence, VmResource vm, long frame, int shift = 12) => new(
        sequence, AgentReport.Poison, vm.Id, vm.MemoryInstance, frame, shift, "srar", "memory-failure", null, At(1), At(1), 1, null, null, null, null);

    public static AgentReport Hit(long sequence, VmResource vm, long frame, long count = 1) => new(
        sequence, AgentReport.Hit, vm.Id, vm.MemoryInstance, frame, null, null, null, vm.PlacementEpoch, At(sequence), At(sequence + 1), count,
        "read", 0, "kvm-page-fault", "mce-injected");

    private static DateTimeOffset At(long second) => DateTimeOffset.FromUnixTimeSeconds(1_700_000_000 + second);
}
