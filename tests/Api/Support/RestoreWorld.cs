using System.Net;
using System.Net.Http.Json;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hosts;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests.Support;

/// <summary>What the tests of a restore say as hosts and ask as operators.</summary>
internal static class RestoreWorld
{
    /// <summary>Each host under a boot of its own: <c>boot-a</c> and so on.</summary>
    public static string BootOf(TestAgent agent) => agent.Host.Replace("host", "boot", StringComparison.Ordinal);

    /// <summary>An agent shows a number from the future: every VM is quarantined from now on.</summary>
    public static async Task QuarantineAsync(this GateWorld world)
    {
        await world.A.ClaimAsync(highestSeen: 1_000_000, boot: BootOf(world.A));
        Assert.True(world.A.Claim is { StoreEpoch: 1, StatementRequired: true }, world.A.Claim.ToString());
    }

    public static async Task ClaimAndStateAsync(this TestAgent agent, params VmStatement[] vms)
    {
        await agent.ClaimAsync(boot: BootOf(agent));
        Assert.True(agent.Claim.StatementRequired);
        await agent.StateAsync(vms);
    }

    public static VmStatement Statement(long memoryInstance, params long[] frames) =>
        new(GateWorld.Vm, memoryInstance, null, null, null, false, [.. frames.Select(frame => new PageKey(frame, 12))]);

    public static VmStatement Live(this VmStatement statement, long right, string instance = "boot-b:1:1") => statement with
    {
        Right = right, RightMemoryInstance = statement.MemoryInstance, VmmInstance = instance, Live = true,
    };

    public static VmStatement Closed(this VmStatement statement, long right) => statement with
    {
        Right = right, RightMemoryInstance = statement.MemoryInstance, VmmInstance = "boot-a:1:1", Closed = StoreEpochs.LastBefore(1),
    };

    public static VmStatement SealedTo(this VmStatement statement, long right, string? instance) =>
        statement.Closed(right) with { Sealed = true, SealedTo = instance };

    public static async Task<HostResource> HostAsync(this ApiHost api, string host) =>
        await (await api.Admin.GetAsync(Routes.Host(host))).ReadAsync(FleetJson.Default.HostResource);

    public static Task<HttpResponseMessage> FenceAsync(this ApiHost api, string host, HttpClient? client = null) =>
        (client ?? api.Admin).PostAsJsonAsync(Routes.Fence(host), new FenceRequest("test"), FleetJson.Default.FenceRequest);

    public static Task<HttpResponseMessage> ReleaseAsync(this ApiHost api, string host) =>
        api.Admin.PostAsJsonAsync(Routes.Release(GateWorld.Vm), new ReleaseRequest(host, "test"), FleetJson.Default.ReleaseRequest);

    public static async Task<IReadOnlyList<long>> FramesAsync(this ApiHost api, string vm = GateWorld.Vm) =>
        [.. (await api.Admin.GetPagesAsync(vm)).Items.Select(page => page.Frame)];

    public static async Task<long> CounterAsync(this ApiHost api)
    {
        await using var db = api.Services.GetRequiredService<StoreContexts>().OpenReader();
        return await db.Counter.Select(row => row.Revision).SingleAsync();
    }

    public static async Task<int> CountAsync(this ApiHost api, string kind)
    {
        await using var db = api.Services.GetRequiredService<StoreContexts>().OpenReader();
        return await db.Changes.CountAsync(row => row.Kind == kind);
    }

    public static async Task AssertQuarantinedAsync(this ApiHost api, string reason = QuarantineReasons.AwaitingStatements)
    {
        var vm = await api.Admin.GetVmAsync(GateWorld.Vm);
        Assert.Equal((true, reason), (vm.Quarantined, vm.QuarantineReason));
    }

    public static async Task<VmResource> AssertOwnedAsync(this ApiHost api, string? host)
    {
        var vm = await api.Admin.GetVmAsync(GateWorld.Vm);
        Assert.Equal((host, false, null), (vm.Host, vm.Quarantined, vm.QuarantineReason));
        return vm;
    }

    /// <summary>Stops the control plane, puts the backup back, and starts it again.</summary>
    public static async Task<ApiHost> RestoreAsync(this ApiHost api, TempFolder folder, string backup)
    {
        await api.DisposeAsync();
        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
        StoreCopy.PutBack(new StoreOptions { Folder = folder.Path }, backup, TimeProvider.System.GetUtcNow());
        return await ApiHost.StartAsync(folder);
    }

    /// <summary>As above, but past the verb: the epoch beside the database does not tell.</summary>
    public static async Task<ApiHost> PutBackByHandAsync(this ApiHost api, TempFolder folder, string backup, params string[] args)
    {
        await api.DisposeAsync();
        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
        Array.ForEach(Directory.GetFiles(folder.Path, "fleet.db*"), File.Delete);
        File.Copy(backup, folder.File("fleet.db"));
        return await ApiHost.StartAsync(folder, null, args);
    }

    public static Task<HttpResponseMessage> StreamAsync(this TestAgent agent) =>
        agent.Client.GetAsync(new Uri(Routes.Desired(agent.Host, agent.Incarnation), UriKind.Relative), HttpCompletionOption.ResponseHeadersRead);

    /// <summary>Beats as an agent that has armed what it has seen.</summary>
    /// <returns>The VMs that it is told to fetch.</returns>
    public static async Task<IReadOnlyList<string>> RefetchAsync(this TestAgent agent, DesiredVm seen)
    {
        var status = new VmStatus(seen.Vm, seen.MemoryInstance, seen.Generation, seen.Generation, seen.Digest, "armed", null, []);
        return (await (await agent.BeatAsync(status)).ReadAsync(FleetJson.Default.HeartbeatResult)).Refetch;
    }

    /// <summary>Nothing of the host is taken but a statement.</summary>
    public static async Task AssertMustStateAsync(this TestAgent agent)
    {
        await (await agent.BeatAsync()).ProblemAsync(HttpStatusCode.Conflict, "statement-required");
        await (await agent.SendAsync()).ProblemAsync(HttpStatusCode.Conflict, "statement-required");
        await (await agent.StreamAsync()).ProblemAsync(HttpStatusCode.Conflict, "statement-required");
        await (await agent.Client.GetAsync(Routes.DesiredVm(agent.Host, GateWorld.Vm))).ProblemAsync(HttpStatusCode.Conflict, "statement-required");
    }
}
