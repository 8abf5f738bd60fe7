using System.Net.Http.Json;
using System.Text.Json;
using Fleet.Api.Migrations;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.Api.Tests.Support;

/// <summary>A control plane with three hosts and one VM on the first, and what callers and agents say to the gate.</summary>
public sealed class GateWorld : IAsyncDisposable
{
    public const string Vm = "vm-1";
    public static readonly VmAttach TargetAttach = new("handoff", Socket: "/run/target.sock");
    private readonly Dictionary<string, long> _sequences = [];

    private GateWorld(ApiHost api, FakeTimeProvider time, TestAgent[] agents)
    {
        (Api, Time) = (api, time);
        (A, B, C) = (agents[0], agents[1], agents[2]);
    }

    public ApiHost Api { get; }

    public FakeTimeProvider Time { get; }

    public TestAgent A { get; }

    public TestAgent B { get; }

    public TestAgent C { get; }

    public static async Task<GateWorld> StartAsync(bool withVm = true)
    {
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        var api = await ApiHost.StartAsync(time: time);
        var agents = new List<TestAgent>();
        foreach (var host in new[] { "host-a", "host-b", "host-c" })
        {
            agents.Add(await (await api.EnrolAsync(host)).ClaimAsync());
        }

        if (withVm)
        {
            await api.Admin.CreateVmAsync(Vm, "host-a");
        }

        return new GateWorld(api, time, [.. agents]);
    }

    /// <summary>With a migration to the second host that waits for seal and acknowledgement.</summary>
    public static async Task<GateWorld> SwitchingAsync()
    {
        var world = await StartAsync();
        await world.BeginAsync();
        Assert.Equal(System.Net.HttpStatusCode.Accepted, (await world.SwitchAsync()).StatusCode);
        return world;
    }

    public Task<VmResource> VmAsync() => Api.Admin.GetVmAsync(Vm);

    public async Task<MigrationResource> MigrationAsync(string id, string query = "") =>
        await (await Api.Admin.GetAsync(Routes.Migration(id) + query)).ReadAsync(FleetJson.Default.MigrationResource);

    public Task<HttpResponseMessage> PutAsync(string id, string target, string vm = Vm) =>
        Api.Admin.PutAsJsonAsync(Routes.Migration(id), new MigrationRequest(vm, target, TargetAttach), FleetJson.Default.MigrationRequest);

    public async Task<MigrationResource> BeginAsync(string id = "m1", string target = "host-b") =>
        await (await PutAsync(id, target)).ReadAsync(FleetJson.Default.MigrationResource);

    public Task<HttpResponseMessage> SwitchAsync(string id = "m1", bool sourceFenced = false, string wait = "") =>
        Api.Admin.PostAsJsonAsync(Routes.Switchover(id) + wait, new SwitchoverRequest(sourceFenced, "test"), FleetJson.Default.SwitchoverRequest);

    public async Task<Permit> PermitAsync(string id = "m1") => await (await SwitchAsync(id)).ReadAsync(FleetJson.Default.Permit);

    public Task<HttpResponseMessage> AbortAsync(string id = "m1", bool targetFenced = false) =>
        Api.Admin.PostAsJsonAsync(Routes.Abort(id), new AbortRequest("test", targetFenced), FleetJson.Default.AbortRequest);

    public Task<HttpResponseMessage> CompleteAsync(string id = "m1") => Api.Admin.PostAsync(new Uri(Routes.Complete(id), UriKind.Relative), null);

    public Task<HttpResponseMessage> ResetAsync() =>
        Api.Admin.PostAsJsonAsync(Routes.Reset(Vm), new ResetRequest("test"), FleetJson.Default.ResetRequest);

    public Task<HttpResponseMessage> ParkAsync(bool sourceFenced = false) =>
        Api.Admin.PostAsJsonAsync(Routes.Park(Vm), new ParkRequest("test", sourceFenced), FleetJson.Default.ParkRequest);

    public Task<HttpResponseMessage> RebuildAsync(string host) =>
        Api.Admin.PostAsJsonAsync(Routes.Rebuild(Vm), new RebuildRequest(host, "test"), FleetJson.Default.RebuildRequest);

    /// <summary>Spools and sends one report after those the agent sent before.</summary>
    public async Task<string?> ReportAsync(TestAgent agent, AgentReport report, params GateAck[] acks)
    {
        var numbered = report with { Sequence = Next(agent) };
        var request = new ReportsRequest(agent.Incarnation, agent.SpoolId, [numbered], acks);
        var result = await (await SendAsync(agent, request)).ReadAsync(FleetJson.Default.ReportsResult);
        Assert.Equal(numbered.Sequence, result.Applied);
        return result.Rejected.SingleOrDefault()?.Code;
    }

    public long Next(TestAgent agent) => _sequences[agent.SpoolId] = _sequences.GetValueOrDefault(agent.SpoolId) + 1;

    public static Task<HttpResponseMessage> SendAsync(TestAgent agent, ReportsRequest request) =>
        agent.Client.PostAsJsonAsync(Routes.Reports(agent.Host), request, FleetJson.Default.ReportsRequest);

    public static AgentReport Gate(string kind, VmResource vm, string? migration, long? epoch, string? instance = null) => new(
        1, kind, vm.Id, vm.MemoryInstance, 0, null, null, null, epoch, DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch, 1,
        null, null, null, null, null, migration, instance);

    public async Task<string?> SealAsync(TestAgent agent, string id = "m1", string? instance = "boot:1:1", long? epoch = null)
    {
        var vm = await VmAsync();
        return await ReportAsync(agent, Gate(AgentReport.Seal, vm, id, epoch ?? vm.PlacementEpoch, instance));
    }

    public async Task<string?> LiftedAsync(TestAgent agent, string id = "m1", long? epoch = null)
    {
        var vm = await VmAsync();
        return await ReportAsync(agent, Gate(AgentReport.Lifted, vm, id, epoch ?? vm.PlacementEpoch));
    }

    public async Task<string?> RenounceAsync(TestAgent agent, string id = "m1", long? epoch = null)
    {
        var vm = await VmAsync();
        return await ReportAsync(agent, Gate(AgentReport.Renounced, vm, id, epoch ?? vm.PlacementEpoch));
    }

    public async Task<string?> PoisonAsync(TestAgent agent, long frame, string? origin = null) =>
        await ReportAsync(agent, TestAgent.Poison(1, await VmAsync(), frame) with { Origin = origin });

    /// <summary>What a target says that armed exactly what is desired.</summary>
    public static async Task<GateAck> MakeAckAsync(TestAgent agent, string id = "m1", string instance = "boot:1:1", params PageKey[] unservable)
    {
        var desired = await agent.DesiredAsync(Vm);
        return new GateAck(Vm, id, instance, desired.MemoryInstance, desired.Generation, desired.Digest, [.. desired.Pages, .. unservable]);
    }

    public static async Task SendAckAsync(TestAgent agent, GateAck ack) =>
        await (await SendAsync(agent, new ReportsRequest(agent.Incarnation, agent.SpoolId, [], [ack]))).ReadAsync(FleetJson.Default.ReportsResult);

    public static async Task AckAsync(TestAgent agent, string id = "m1", string instance = "boot:1:1", params PageKey[] unservable) =>
        await SendAckAsync(agent, await MakeAckAsync(agent, id, instance, unservable));

    public static async Task ObstructAsync(TestAgent agent, params GateObstacle[] obstacles) =>
        await (await SendAsync(agent, new ReportsRequest(agent.Incarnation, agent.SpoolId, [], null, obstacles))).ReadAsync(FleetJson.Default.ReportsResult);

    public async Task<Permit> GrantAsync(string id = "m1", TestAgent? source = null, TestAgent? target = null, string instance = "boot:1:1")
    {
        (source, target) = (source ?? A, target ?? B);
        await BeginAsync(id, target.Host);
        await (await SwitchAsync(id)).ReadAsync(FleetJson.Default.MigrationResource);
        Assert.Null(await SealAsync(source, id, instance));
        await AckAsync(target, id, instance);
        return await PermitAsync(id);
    }

    public async Task<IEnumerable<long>> FramesAsync() => (await Api.Admin.GetPagesAsync(Vm)).Items.Select(page => page.Frame);

    /// <summary>The hosts' agents fall silent: no longer online, though nothing has expired.</summary>
    public void FallSilent() => Time.Advance(TimeSpan.FromSeconds(20));

    public Task SweepAsync() => Api.Services.GetRequiredService<MigrationSweep>().SweepAsync(CancellationToken.None);

    public async Task<IReadOnlyList<string>> KindsAsync(string resource)
    {
        await using var db = Api.Services.GetRequiredService<StoreContexts>().OpenReader();
        return await db.Changes.Where(row => row.Resource == resource).OrderBy(row => row.Revision).Select(row => row.Kind).ToListAsync();
    }

    public async Task<IReadOnlyList<(string Host, bool IsOpen)>> PlacementsAsync()
    {
        await using var db = Api.Services.GetRequiredService<StoreContexts>().OpenReader();
        return [.. (await db.Placements.Where(row => row.Vm == Vm).OrderBy(row => row.PlacementEpoch).ToListAsync()).Select(row => (row.Host, row.ToRevision is null))];
    }

    public static IEnumerable<string?> Codes(JsonElement problem) =>
        problem.GetProperty("reasons").EnumerateArray().Select(reason => reason.GetProperty("code").GetString());

    /// <summary>Takes all rows of a VM out, so that what comes next does not carry it along.</summary>
    public Task ForgetAsync(string vm) => Api.Services.GetRequiredService<StoreWriter>().ExecuteAsync(
        async scope =>
        {
            await scope.Db.Statements.Where(row => row.Vm == vm).ExecuteDeleteAsync();
            await scope.Db.Pages.Where(row => row.Vm == vm).ExecuteDeleteAsync();
            await scope.Db.Migrations.Where(row => row.Vm == vm).ExecuteDeleteAsync();
            await scope.Db.Placements.Where(row => row.Vm == vm).ExecuteDeleteAsync();
            await scope.Db.Vms.Where(row => row.Id == vm).ExecuteDeleteAsync();
            return true;
        },
        CancellationToken.None);

    public ValueTask DisposeAsync() => Api.DisposeAsync();
}
