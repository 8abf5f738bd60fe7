using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;

namespace Fleet.Api.Tests;

/// <summary>An agent that holds what is desired is told so; in any other case it is sent everything.</summary>
[Trait("Invariant", "I3")]
public sealed class UnchangedTests
{
    private const string Host = "host-a";
    private const int SnapshotReceived = 1611;
    private const int IsUnchanged = 1613;

    [Fact]
    public async Task Stream_OfAnAgentThatHoldsTheSame_OpensWithUnchangedAndGoesOnFromThere()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync(Host)).ClaimAsync();
        await api.Admin.CreateVmAsync("vm-1", Host);
        await api.Admin.CreateVmAsync("vm-2", Host);
        await api.Admin.AddPagesAsync("vm-2", new PageReport(7, 12));
        var view = await HeldAsync(agent);
        Assert.Equal(2, view.Vms.Count);

        var names = new List<string>();
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        await foreach (var (name, _) in agent.StreamAsync(view, stop, DesiredDigest.Compute(view.Vms.Values)))
        {
            names.Add(name);
            if (name == DesiredEvents.Unchanged)
            {
                await api.Admin.AddPagesAsync("vm-2", new PageReport(8, 12));
            }
            else
            {
                await stop.CancelAsync();
            }
        }

        Assert.Equal([DesiredEvents.Unchanged, DesiredEvents.Delta], names);
        view.AssertEquals([await agent.DesiredAsync("vm-1"), await agent.DesiredAsync("vm-2")]);
    }

    /// <summary>Each of these changes what an agent does, and only the first two the poisoned set.</summary>
    [Theory]
    [InlineData("pages")]
    [InlineData("cleared")]
    [InlineData("attach")]
    [InlineData("migration")]
    [InlineData("new-vm")]
    [InlineData("deleted-vm")]
    public async Task Stream_AfterAnyChange_OpensWithASnapshot(string change)
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync(Host)).ClaimAsync();
        await (await api.EnrolAsync("host-b")).ClaimAsync();
        await api.Admin.CreateVmAsync("vm-1", Host);
        await api.Admin.AddPagesAsync("vm-1", new PageReport(7, 12));
        var view = await HeldAsync(agent);
        var response = change switch
        {
            "pages" => await api.Admin.PostPagesAsync("vm-1", new PageReport(8, 12)),
            "cleared" => await api.Admin.DeleteAsync(new Uri(Routes.Page("vm-1", 7) + "?reason=test", UriKind.Relative)),
            "attach" => await api.Admin.PutAsJsonAsync(
                Routes.Vm("vm-1"), new VmRequest(Host, ApiCalls.Memory64MiB, new VmAttach("handoff", Socket: "/run/other.sock")), FleetJson.Default.VmRequest),
            "migration" => await api.Admin.PutAsJsonAsync(
                Routes.Migration("m1"), new Contracts.Migrations.MigrationRequest("vm-1", "host-b", new VmAttach("handoff")), FleetJson.Default.MigrationRequest),
            "new-vm" => await api.Admin.PutVmAsync("vm-2", Host),
            _ => await api.Admin.DeleteAsync(new Uri(Routes.Vm("vm-1"), UriKind.Relative)),
        };
        Assert.True(response.IsSuccessStatusCode, $"{response.StatusCode}");

        Assert.Equal(DesiredEvents.SnapshotBegin, await agent.OpenStreamAsync(DesiredDigest.Compute(view.Vms.Values)));
    }

    [Theory]
    [InlineData("0")]
    [InlineData("ZZ")]
    [InlineData("E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855")]
    public async Task Stream_WithWhatIsNoDigest_IsRefused(string holds)
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync(Host)).ClaimAsync();
        await (await agent.Client.GetAsync(new Uri(Routes.Desired(Host, agent.Incarnation, holds), UriKind.Relative)))
            .ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
    }

    /// <summary>The real agent, from what is on its disk.</summary>
    [Fact]
    public async Task Agent_StartedAgain_IsToldThatNothingChanged_UnlessItsDiskIsInDoubt()
    {
        await using var api = await ApiHost.StartAsync();
        using var state = new TempFolder();
        await api.Admin.JoinTokenAsync(Host);
        await api.Admin.CreateVmAsync("vm-1", Host);
        await api.Admin.AddPagesAsync("vm-1", new PageReport(7, 12));
        await using (var first = await RunningAgent.StartAsync(state.Path, api.Url, ("JoinToken", await api.Admin.JoinTokenAsync(Host))))
        {
            await first.SaysAsync(SnapshotReceived);
        }

        await using (var second = await RunningAgent.StartAsync(state.Path, api.Url))
        {
            await second.SaysAsync(IsUnchanged);
            Assert.DoesNotContain(second.Logs, line => line.EventId == SnapshotReceived);
        }

        var file = Path.Combine(state.Path, "desired", "vm-1.json");
        var held = JsonSerializer.Deserialize(await File.ReadAllTextAsync(file), FleetJson.Default.DesiredVm)!;
        await File.WriteAllTextAsync(file, JsonSerializer.Serialize(held with { Pages = [] }, FleetJson.Default.DesiredVm));
        await using (var third = await RunningAgent.StartAsync(state.Path, api.Url))
        {
            await third.SaysAsync(SnapshotReceived);
            Assert.Equal(held.Pages, third.Get<HostAgent.Reconcile.VmTable>().Find("vm-1")!.Desired!.Pages);
        }
    }

    private static async Task<DesiredView> HeldAsync(TestAgent agent)
    {
        var view = new DesiredView();
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        await foreach (var (name, _) in agent.StreamAsync(view, stop))
        {
            if (name == DesiredEvents.SnapshotEnd)
            {
                await stop.CancelAsync();
            }
        }

        return view;
    }
}
