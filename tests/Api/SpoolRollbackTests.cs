using System.Net;
using Fleet.Api.Tests.Support;
using Fleet.Contracts.Agents;
using Fleet.Data.Storage;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Spool;

namespace Fleet.Api.Tests;

/// <summary>
/// A report that was answered with 2xx is durable (I2). A database put back behind the control plane's back has lost it; other hosts may have
/// been given its numbers since, and still the agent that was answered proves it.
/// </summary>
[Trait("Invariant", "I2")]
public sealed class SpoolRollbackTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly DirectoryInfo _state = Directory.CreateTempSubdirectory("fleet-agent-");

    [Fact]
    public async Task Claim_AnsweredReportIsForgotten_ProvesItAndReportsGoOnWithoutAGap()
    {
        var api = await ApiHost.StartAsync(_folder);
        var (a, b) = (await api.EnrolAsync("host-a"), await api.EnrolAsync("host-b"));
        await a.ClaimAsync();
        await b.ClaimAsync();
        var vm = await api.Admin.CreateVmAsync(GateWorld.Vm, "host-a");
        await a.ReportAsync(TestAgent.Poison(1, vm, 4));
        BackUp();
        await a.ReportAsync(TestAgent.Poison(2, vm, 5));
        await using var restored = api = await api.PutBackByHandAsync(_folder, _folder.File("backup.db"));
        (a, b) = (a.MoveTo(api), b.MoveTo(api));
        await b.ClaimAsync();
        await b.ClaimAsync();
        await api.Admin.AddPagesAsync(GateWorld.Vm, new Contracts.Pages.PageReport(9, 12));

        await a.ClaimAsync(vm.Generation, a.Incarnation, spool: new SpoolPosition(a.SpoolId, 2));

        Assert.True(a.Claim is { StatementRequired: true, StoreEpoch: 1 }, a.Claim.ToString());
        await api.AssertQuarantinedAsync();
        var statement = RestoreWorld.Statement(vm.MemoryInstance, 5).Live(vm.PlacementEpoch);
        (await a.SendStatementAsync(new SpoolPosition(a.SpoolId, 2), statement)).EnsureSuccessStatusCode();
        await b.ClaimAndStateAsync();
        await api.AssertOwnedAsync("host-a");
        Assert.Equal(3, (await a.ReportAsync(TestAgent.Poison(3, vm, 6))).Applied);
        Assert.Equal([4, 5, 6, 9], await api.FramesAsync());

        await a.ClaimAsync(lastIncarnation: a.Incarnation, spool: new SpoolPosition(a.SpoolId, 3));
        Assert.False(a.Claim.StatementRequired);
    }

    /// <summary>Such as one whose state folder came from another host: what that was answered is nothing of this one.</summary>
    [Fact]
    public async Task Claim_SpoolOfALifeThatIsNotKnownHere_ProvesNothing()
    {
        await using var api = await ApiHost.StartAsync(_folder);
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();

        await agent.ClaimAsync(lastIncarnation: agent.Incarnation - 1, spool: new SpoolPosition(agent.SpoolId, 7));
        Assert.False(agent.Claim.StatementRequired);
        await agent.ClaimAsync(spool: new SpoolPosition(agent.SpoolId, 7));
        Assert.False(agent.Claim.StatementRequired);
    }

    [Fact]
    public async Task Claim_MalformedSpool_IsRefused()
    {
        await using var api = await ApiHost.StartAsync(_folder);
        var agent = await api.EnrolAsync("host-a");

        await (await agent.SendClaimAsync(spool: new SpoolPosition("../etc", 1))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        await (await agent.SendClaimAsync(spool: new SpoolPosition(agent.SpoolId, -1))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
    }

    /// <summary>The real agent goes on living while the database is put back: its next report does not fit, and what it was answered comes back.</summary>
    [Fact]
    public async Task Agent_WhoseAnsweredReportIsForgotten_ShowsItStatesAndReportsOn()
    {
        var api = await ApiHost.StartAsync(_folder);
        await using var agent = await RunningAgent.StartAsync(_state.FullName, api.Url, ("JoinToken", await api.Admin.JoinTokenAsync("host-a")));
        await agent.SaysAsync(1631);
        var vm = await api.Admin.CreateVmAsync(GateWorld.Vm, "host-a");
        var spool = agent.Get<ReportSpool>();
        Report(1);
        await UntilAsync(() => spool.Count == 0);
        BackUp();
        Report(5);
        await UntilAsync(() => spool.Count == 0 && agent.Get<VmTable>().Find(GateWorld.Vm)?.Desired is { Pages.Count: 2 });
        await using var restored = await api.PutBackByHandAsync(_folder, _folder.File("backup.db"), "--urls", api.Url.ToString());
        Assert.Equal([1], await restored.FramesAsync());

        var before = spool.SpoolId;

        Report(6);

        await agent.SaysAsync(2211);
        await UntilAsync(() => spool.Count == 0);
        // No guest ever had a right here, so its memory begins anew, and what was still to be said of the old one means nothing.
        Assert.Equal([1, 5], await restored.FramesAsync());
        Assert.Equal(before, spool.SpoolId);
        await restored.AssertOwnedAsync("host-a");

        void Report(long frame) => Assert.True(spool.TryAppend([TestAgent.Poison(0, vm, frame) with { Origin = PoisonOrigins.Held }]));
    }

    public void Dispose()
    {
        _folder.Dispose();
        _state.Delete(recursive: true);
    }

    private void BackUp() => StoreCopy.BackUp(new StoreOptions { Folder = _folder.Path }, _folder.File("backup.db"));

    /// <summary>The deadline only ends a test that failed.</summary>
    private static async Task UntilAsync(Func<bool> condition)
    {
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        while (!condition())
        {
            await Task.Delay(20, deadline.Token);
        }
    }
}
