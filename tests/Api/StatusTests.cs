using System.Net;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hosts;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.Api.Tests;

public sealed class StatusTests
{
    [Fact]
    [Trait("Invariant", "I6")]
    public async Task Host_ThatFallsSilent_BecomesUnknownThenOfflineAndNothingIsArmedAnyMore()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        await using var api = await ApiHost.StartAsync(time: time);
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await api.Admin.CreateVmAsync("vm-1", "host-a");
        await api.Admin.AddPagesAsync("vm-1", new Contracts.Pages.PageReport(5, 12));
        Assert.Equal("unknown", await EnforcementAsync(api));
        await agent.ArmAsync("vm-1");
        Assert.Equal(("online", "armed", "armed"), await StatesAsync(api));

        time.Advance(TimeSpan.FromSeconds(14.9));
        Assert.Equal(("online", "armed", "armed"), await StatesAsync(api));
        time.Advance(TimeSpan.FromSeconds(0.1));
        Assert.Equal(("unknown", "unknown", "unknown"), await StatesAsync(api));
        time.Advance(TimeSpan.FromSeconds(45));
        Assert.Equal(("offline", "unknown", "unknown"), await StatesAsync(api));
        await agent.ArmAsync("vm-1");
        Assert.Equal(("online", "armed", "armed"), await StatesAsync(api));
    }

    [Fact]
    public async Task Enforcement_IsArmedOnlyForThePresentGenerationDigestAndMemory()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await api.Admin.CreateVmAsync("vm-1", "host-a");
        await api.Admin.AddPagesAsync("vm-1", new Contracts.Pages.PageReport(5, 12));
        var desired = await agent.DesiredAsync("vm-1");
        var armed = new VmStatus("vm-1", desired.MemoryInstance, desired.Generation, desired.Generation, desired.Digest, "armed", null, []);

        Assert.Equal(("armed", false), await BeatAsync(armed));
        Assert.Equal(("pending", true), await BeatAsync(armed with { Digest = new string('0', 64) }));
        Assert.Equal(("pending", true), await BeatAsync(armed with { MemoryInstance = 1 }));
        Assert.Equal(("pending", true), await BeatAsync(armed with { Generation = 1, ArmedGeneration = 1 }));
        Assert.Equal(("pending", false), await BeatAsync(armed with { ArmedGeneration = null, Digest = null, State = "pending", Reason = "not-attached" }));
        Assert.Equal(("failed", false), await BeatAsync(armed with { State = "failed", Reason = "no" }));
        Assert.Equal(("failed", false), await BeatAsync(armed with { Exceptions = [new PageException(5, 12, "failed", null, "UFFDIO_POISON: EINVAL")] }));
        Assert.Equal("failed", (await api.Admin.GetPagesAsync("vm-1")).Items[0].Hosts[0].State);
        Assert.Equal(("armed", false), await BeatAsync(armed with { Exceptions = [new PageException(5, 12, "armed", 21, null)] }));
        Assert.Equal(21, (await api.Admin.GetPagesAsync("vm-1")).Items[0].Hosts[0].ArmedShift);
        Assert.Equal(("unknown", true), await BeatAsync());

        await BeatAsync(armed);
        await api.Admin.AddPagesAsync("vm-1", new Contracts.Pages.PageReport(6, 12));
        Assert.Equal("pending", await EnforcementAsync(api));
        await agent.ArmAsync("vm-1");
        await agent.ReportAsync(TestAgent.Hit(1, await api.Admin.GetVmAsync("vm-1"), 6));
        Assert.Equal(["armed", "hit"], (await api.Admin.GetPagesAsync("vm-1")).Items.Select(page => page.Hosts[0].State));
        await agent.ClaimAsync();
        Assert.Equal("unknown", await EnforcementAsync(api));

        async Task<(string State, bool Refetch)> BeatAsync(params VmStatus[] vms)
        {
            var result = await (await agent.BeatAsync(vms)).ReadAsync(FleetJson.Default.HeartbeatResult);
            Assert.Equal("5s", result.HeartbeatInterval);
            return (await EnforcementAsync(api), result.Refetch.Count == 1);
        }
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Heartbeat_AboutAnotherHostsVm_CountsForNothing()
    {
        await using var api = await ApiHost.StartAsync();
        var mine = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var other = await (await api.EnrolAsync("host-b")).ClaimAsync();
        await api.Admin.CreateVmAsync("vm-1", "host-a");
        var desired = await mine.DesiredAsync("vm-1");
        var response = await other.BeatAsync(new VmStatus("vm-1", desired.MemoryInstance, desired.Generation, desired.Generation, desired.Digest, "armed", null, []));
        Assert.Equal("unknown", await EnforcementAsync(api));

        // It is to fetch the VM: the answer to that is that it does not concern it.
        Assert.Equal(["vm-1"], (await response.ReadAsync(FleetJson.Default.HeartbeatResult)).Refetch);
        await (await other.Client.GetAsync(new Uri(Routes.DesiredVm("host-b", "vm-1"), UriKind.Relative))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
    }

    [Fact]
    public async Task Wait_ComesBackWhenTheHostHasArmed_OrWhenTimeIsUp()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        await using var api = await ApiHost.StartAsync(time: time);
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await api.Admin.CreateVmAsync("vm-1", "host-a");
        var waiting = api.Admin.GetVmAsync("vm-1", "?wait=30s");
        await agent.BeatAsync();
        Assert.False(waiting.IsCompleted);
        await agent.ArmAsync("vm-1");
        Assert.Equal("armed", (await waiting).Enforcement[0].State);

        await api.Admin.AddPagesAsync("vm-1", new Contracts.Pages.PageReport(5, 12));
        var timed = api.Admin.GetVmAsync("vm-1", "?wait=5s");
        while (!timed.IsCompleted)
        {
            // Whenever the server has begun to wait, this is what ends it.
            time.Advance(TimeSpan.FromSeconds(6));
            await Task.WhenAny(timed, Task.Delay(5));
        }

        Assert.NotEqual("armed", (await timed).Enforcement[0].State);
        await (await api.Admin.GetAsync(new Uri("/v1/vms/vm-1?wait=soon", UriKind.Relative))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
    }

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Restart_KeepsStateTokensAndNumbers_ButNotWhatWasArmed()
    {
        using var folder = new TempFolder();
        string token;
        long generation, incarnation;
        TestAgent agent;
        await using (var api = await ApiHost.StartAsync(folder))
        {
            token = api.AdminToken;
            agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
            incarnation = agent.Incarnation;
            var vm = await api.Admin.CreateVmAsync("vm-1", "host-a");
            generation = (await agent.ReportAsync(TestAgent.Poison(1, vm, 5), TestAgent.Hit(2, vm, 5))).Applied == 2
                ? (await api.Admin.GetVmAsync("vm-1")).Generation : 0;
            await agent.ArmAsync("vm-1");
        }

        await using (var api = await ApiHost.StartAsync(folder))
        {
            Assert.Equal(token, api.AdminToken);
            var vm = await api.Admin.GetVmAsync("vm-1");
            Assert.Equal((generation, 1, "unknown"), (vm.Generation, vm.PoisonedPages, vm.Enforcement[0].State));
            var again = new TestAgent("host-a", api.Client(agent.Client.DefaultRequestHeaders.Authorization!.Parameter)) { SpoolId = agent.SpoolId };
            await again.ClaimAsync();
            Assert.True(again.Incarnation > incarnation);
            Assert.Equal(2, (await again.ReportAsync(TestAgent.Poison(1, vm, 9), TestAgent.Hit(2, vm, 9))).Applied);
            Assert.Equal(5, (await api.Admin.GetPagesAsync("vm-1")).Items.Single().Frame);
            Assert.True((await api.Admin.CreateVmAsync("vm-2", null)).Version > again.Incarnation);
        }
    }

    private static async Task<string> EnforcementAsync(ApiHost api) => (await api.Admin.GetVmAsync("vm-1")).Enforcement.Single().State;

    private static async Task<(string Host, string Vm, string Page)> StatesAsync(ApiHost api)
    {
        HostResource host = await (await api.Admin.GetAsync(new Uri("/v1/hosts/host-a", UriKind.Relative))).ReadAsync(FleetJson.Default.HostResource);
        return (host.State, await EnforcementAsync(api), (await api.Admin.GetPagesAsync("vm-1")).Items[0].Hosts[0].State);
    }
}
