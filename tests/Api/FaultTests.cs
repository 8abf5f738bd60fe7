using System.Net;
using System.Net.Http.Json;
using Fleet.Api.Changes;
using Fleet.Api.Security;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Faults;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.Api.Tests;

/// <summary>Memory errors of hosts: reported by their agents, coalesced, counted over time, and shown to whom they may be shown.</summary>
public sealed class FaultTests
{
    private static readonly DateTimeOffset Noon = new(2030, 6, 15, 12, 0, 0, TimeSpan.Zero);
    private static readonly DimmIdentity A3 = new("P1-DIMMA3", "CPU1 A3", "S-1", "Samsung", "M393");
    private static readonly DimmIdentity B1 = new("P2-DIMMB1", null, null, null, null);

    [Fact]
    [Trait("Invariant", "I5")]
    public async Task Faults_ReplayedAndOverlapping_CountOnceAndCoalesce()
    {
        await using var api = await StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        AgentReport[] spool =
        [
            Fault(1, FaultKinds.Corrected, A3, 100, count: 3), Fault(2, FaultKinds.Corrected, A3, 100, count: 4, Noon.AddHours(-2)),
            Fault(3, FaultKinds.Uncorrected, A3, 100), Fault(4, FaultKinds.Corrected, A3, null), Fault(5, FaultKinds.Corrected, A3 with { Serial = "S-2" }, 100),
            Fault(6, FaultKinds.Corrected, null, null),
        ];
        await agent.ReportAsync(spool[..4]);
        await agent.ReportAsync(spool);
        Assert.Equal(6, (await agent.ReportAsync(spool)).Applied);

        var faults = (await ListAsync(api.Admin)).Items;
        Assert.Equal(
            [("corrected", 100L, 7L), ("uncorrected", 100L, 1L), ("corrected", -1L, 1L), ("corrected", 100L, 1L), ("corrected", -1L, 1L)],
            faults.Select(fault => (fault.Kind, fault.PhysicalFrame ?? -1, fault.Count)));
        Assert.Equal((Noon.AddHours(-2), Noon), (faults[0].FirstAt, faults[0].LastAt));
        Assert.Equal((A3, "0x64000", null), (faults[0].Dimm, faults[0].PhysicalAddress, faults[0].Vm));
        Assert.Equal(["S-1", "S-1", "S-1", "S-2", null], faults.Select(fault => fault.Dimm?.Serial));
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Fault_NamingAnotherHostsVm_IsStoredWithoutIt()
    {
        await using var api = await StartAsync();
        var (a, b) = (await (await api.EnrolAsync("host-a")).ClaimAsync(), await (await api.EnrolAsync("host-b")).ClaimAsync());
        var vm = await api.Admin.CreateVmAsync("vm-1", "host-a");
        await a.ReportAsync(Of(vm, 7));
        var result = await b.ReportAsync(Of(vm, 7));

        Assert.Equal((1, 0), (result.Applied, result.Rejected.Count));
        Assert.Equal((vm.Id, vm.MemoryInstance, 7L), Mapped((await ListAsync(api.Admin, "?host=host-a")).Items.Single()));
        Assert.Equal((null, null, null), Mapped((await ListAsync(api.Admin, "?host=host-b")).Items.Single()));

        // Nor does a frame that the VM does not have, or RAM that is gone.
        await a.ReportAsync(Of(vm, 1L << 30) with { Sequence = 2 }, (Of(vm, 7) with { Sequence = 3, MemoryInstance = 1, MemoryFault = new(FaultKinds.Uncorrected, B1, 6) }));
        Assert.All((await ListAsync(api.Admin, "?host=host-a")).Items, fault => Assert.Equal((null, null, null), Mapped(fault)));

        var others = await a.Client.PostAsJsonAsync(Routes.Reports("host-b"), new ReportsRequest(a.Incarnation, a.SpoolId, [Of(vm, 7)]), FleetJson.Default.ReportsRequest);
        await others.ProblemAsync(HttpStatusCode.Forbidden, "wrong-host");
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Faults_WithoutReadHardware_ShowNeitherAddressNorSerialAnywhere()
    {
        await using var api = await StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await agent.ReportAsync(Fault(1, FaultKinds.Uncorrected, A3, 0xabcde));
        var reader = api.Client(await SecurityTests.MintAsync(api, Scopes.Read));

        var hidden = (await ListAsync(reader)).Items.Single();
        Assert.Equal((null, null, null, true), (hidden.PhysicalFrame, hidden.PhysicalAddress, hidden.Dimm!.Serial, hidden.Redacted));
        Assert.Equal((A3.Label, A3.PartNumber), (hidden.Dimm.Label, hidden.Dimm.PartNumber));
        foreach (var path in new[] { Routes.Faults, Routes.FaultSummary, Routes.Changes + "?limit=1000", "/metrics" })
        {
            var text = await reader.GetStringAsync(new Uri(path, UriKind.Relative));
            Assert.All(new[] { "S-1", "abcde", "703710" }, secret => Assert.DoesNotContain(secret, text, StringComparison.OrdinalIgnoreCase));
        }

        var allowed = api.Client(await SecurityTests.MintAsync(api, $"{Scopes.Read} {Scopes.ReadHardware}"));
        var shown = (await ListAsync(allowed)).Items.Single();
        Assert.Equal((0xabcdeL, "0xabcde000", "S-1", false), (shown.PhysicalFrame, shown.PhysicalAddress, shown.Dimm!.Serial, shown.Redacted));
        Assert.Equal("S-1", (await SummaryAsync(allowed)).Items.Single().Dimm!.Serial);
        await (await api.Client(await SecurityTests.MintAsync(api, Scopes.ReadHardware)).GetAsync(new Uri(Routes.Faults, UriKind.Relative)))
            .ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
    }

    [Fact]
    public async Task Summary_IsWorstFirstWithCountsOverTime()
    {
        await using var api = await StartAsync();
        var (a, b) = (await (await api.EnrolAsync("host-a")).ClaimAsync(), await (await api.EnrolAsync("host-b")).ClaimAsync());
        await a.ReportAsync(
            Fault(1, FaultKinds.Corrected, A3, 1, count: 900), Fault(2, FaultKinds.Corrected, B1, 2, count: 5),
            Fault(3, FaultKinds.Uncorrected, B1, 3, count: 50, Noon.AddDays(-40)));
        await b.ReportAsync(
            Fault(1, FaultKinds.Uncorrected, A3, 8), Fault(2, FaultKinds.Uncorrected, A3, 9, 2, Noon.AddDays(-1)), Fault(3, FaultKinds.Corrected, A3, 9, 4, Noon.AddDays(-1)));

        var summary = await SummaryAsync(api.Admin);
        Assert.Equal((Noon.Date.AddDays(-30), "1d", false), (summary.Since.Date, summary.Bucket, summary.More));
        Assert.Equal([("host-b", A3.Label, 3L, 4L, 2), ("host-a", A3.Label, 0, 900, 1), ("host-a", B1.Label, 0, 5, 1)], summary.Items.Select(Totals));
        Assert.Equal([new FaultBucket(Midnight(-1), 2, 4), new FaultBucket(Midnight(0), 1, 0)], summary.Items[0].Buckets);
        Assert.Equal(Noon, summary.Items[0].LastAt);

        var hourly = await SummaryAsync(api.Admin, $"?bucket=1h&since={Noon.AddHours(-3):yyyy-MM-ddTHH:mm:ssZ}&host=host-b");
        Assert.Equal([new FaultBucket(Noon, 1, 0)], Assert.Single(hourly.Items).Buckets);
        var longer = await SummaryAsync(api.Admin, $"?since={Noon.AddDays(-50):yyyy-MM-ddTHH:mm:ssZ}&limit=1");
        Assert.Equal(("host-a", B1.Label, 50L, 5L, 2), Totals(Assert.Single(longer.Items)));
        Assert.True(longer.More);
    }

    [Fact]
    public async Task List_FiltersAndPages()
    {
        await using var api = await StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await agent.ReportAsync([.. Enumerable.Range(1, 5).Select(frame => Fault(frame, FaultKinds.Corrected, frame < 3 ? B1 : A3, frame, 1, Noon.AddDays(-frame)))]);

        var first = await ListAsync(api.Admin, "?limit=3");
        var second = await ListAsync(api.Admin, $"?limit=3&after={first.Next}");
        Assert.Equal([1L, 2, 3, 4, 5], first.Items.Concat(second.Items).Select(fault => fault.PhysicalFrame));
        Assert.Null(second.Next);
        Assert.Equal([3L, 4, 5], (await ListAsync(api.Admin, "?dimm=P1-DIMMA3")).Items.Select(fault => fault.PhysicalFrame));
        Assert.Equal([3L, 4, 5], (await ListAsync(api.Admin, "?dimm=CPU1%20A3")).Items.Select(fault => fault.PhysicalFrame));
        Assert.Equal([1L, 2], (await ListAsync(api.Admin, $"?since={Noon.AddDays(-2):yyyy-MM-ddTHH:mm:ssZ}")).Items.Select(fault => fault.PhysicalFrame));
        Assert.Empty((await ListAsync(api.Admin, "?host=host-b")).Items);
        foreach (var query in new[] { "?since=yesterday", "/summary?bucket=1m", "/summary?since=1999-01-01T00:00:00Z", "/summary?limit=0", "?host=-" })
        {
            await (await api.Admin.GetAsync(new Uri(Routes.Faults + query, UriKind.Relative))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        }
    }

    [Fact]
    public async Task Faults_ThatAreNotWellFormed_AreRejectedOneByOne()
    {
        await using var api = await StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var good = Fault(1, FaultKinds.Corrected, A3, 1);
        AgentReport[] bad =
        [
            good with { MemoryFault = null }, good with { MemoryFault = new("broken", A3, 1) }, good with { MemoryFault = new(FaultKinds.Corrected, A3, -1) },
            good with { MemoryFault = new(FaultKinds.Corrected, new(null, null, null, null, null), 1) }, good with { Count = 0 }, good with { Vm = "-" },
            good with { MemoryFault = new(FaultKinds.Corrected, A3 with { Label = "a\nb" }, 1) }, good with { MemoryFault = new(FaultKinds.Corrected, A3 with { Serial = new('x', 129) }, 1) },
            good with { Kind = AgentReport.Hit },
        ];
        var result = await agent.ReportAsync([.. bad.Append(good).Select((report, index) => report with { Sequence = index + 1 })]);

        Assert.Equal(bad.Select((_, index) => new RejectedReport(index + 1, "malformed-report")), result.Rejected);
        Assert.Equal(1, Assert.Single((await ListAsync(api.Admin)).Items).Count);
    }

    [Fact]
    public async Task Uncorrected_WritesAChange_AndACorrectedOneOnlyThatOfItsReports()
    {
        await using var api = await StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await agent.ReportAsync(Fault(1, FaultKinds.Corrected, A3, 1), Fault(2, FaultKinds.Uncorrected, A3, 2, count: 2), Fault(3, FaultKinds.Uncorrected, A3, 2));
        await using var db = api.Services.GetRequiredService<StoreContexts>().OpenReader();
        var changes = await db.Changes.Where(row => row.Kind == ChangeKinds.HostUncorrected || row.Kind == ChangeKinds.ReportsApplied).OrderBy(row => row.Revision).ToListAsync();
        Assert.Equal([ChangeKinds.HostUncorrected, ChangeKinds.ReportsApplied], changes.Select(row => row.Kind));
        Assert.Equal("""{"label":"P1-DIMMA3","locator":"CPU1 A3","count":3,"vm":null,"frame":null}""", changes[0].Payload);
        Assert.Contains("\"faults\":3", changes[1].Payload, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Retention_DropsWhatIsOldAndModulesThatNothingSpeaksOf()
    {
        // Each day a process of its own: moving one clock by days would fire every timer of a second some hundred thousand times, retention's among them.
        using var folder = new TempFolder();
        // A clock that is years ahead keeps nothing longer.
        await ReportOnAsync(folder, Noon, "host-a", Fault(1, FaultKinds.Corrected, A3, 1, 1, Noon.AddYears(50)), Fault(2, FaultKinds.Corrected, B1, 2));
        await ReportOnAsync(folder, Noon.AddDays(9), "host-b", Fault(1, FaultKinds.Corrected, B1, 3, 1, Noon.AddDays(9)));
        await using var api = await ApiHost.StartAsync(folder, new FakeTimeProvider(Noon.AddDays(11)), "--Fleet:FaultRetention=10.00:00:00");
        await api.Services.GetRequiredService<Retention>().RunAsync(CancellationToken.None);

        await using var db = api.Services.GetRequiredService<StoreContexts>().OpenReader();
        Assert.Equal([3L], await db.Faults.Select(row => row.PhysicalFrame).ToListAsync());
        Assert.Equal([("host-b", B1.Label!)], (await db.Dimms.ToListAsync()).Select(row => (row.Host, row.Label)));
        Assert.Equal([Noon.AddDays(9).ToUnixTimeMilliseconds()], await db.FaultHours.Select(row => row.Hour).ToListAsync());
        Assert.Contains("\"faults\":2", (await db.Changes.SingleAsync(row => row.Kind == ChangeKinds.Compacted)).Payload, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Retention_KeepsTheNewestOfTooMany()
    {
        await using var api = await ApiHost.StartAsync(null, new FakeTimeProvider(Noon), "--Fleet:FaultsKept=1000");
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await agent.ReportAsync([.. Enumerable.Range(1, 700).Select(frame => Fault(frame, FaultKinds.Corrected, A3, frame))]);
        await agent.ReportAsync([.. Enumerable.Range(701, 500).Select(frame => Fault(frame, FaultKinds.Corrected, A3, frame))]);
        await api.Services.GetRequiredService<Retention>().RunAsync(CancellationToken.None);
        await using var db = api.Services.GetRequiredService<StoreContexts>().OpenReader();
        Assert.Equal(Enumerable.Range(201, 1000).Select(frame => (long)frame), db.Faults.OrderBy(row => row.PhysicalFrame).Select(row => row.PhysicalFrame));
        Assert.Equal(1200, (await db.FaultHours.SingleAsync()).Count);
    }

    private static async Task ReportOnAsync(TempFolder folder, DateTimeOffset day, string host, params AgentReport[] reports)
    {
        await using var api = await ApiHost.StartAsync(folder, new FakeTimeProvider(day));
        await (await (await api.EnrolAsync(host)).ClaimAsync()).ReportAsync(reports);
    }

    private static Task<ApiHost> StartAsync() => ApiHost.StartAsync(time: new FakeTimeProvider(Noon));

    private static AgentReport Fault(long sequence, string kind, DimmIdentity? dimm, long? frame, long count = 1, DateTimeOffset? at = null) => new(
        sequence, AgentReport.Fault, null, 0, 0, null, null, null, null, at ?? Noon, at ?? Noon, count, null, null, null, null,
        MemoryFault: new MemoryFault(kind, dimm, frame));

    private static AgentReport Of(VmResource vm, long frame) =>
        Fault(1, FaultKinds.Uncorrected, B1, 5) with { Vm = vm.Id, MemoryInstance = vm.MemoryInstance, Frame = frame };

    private static (string?, long?, long?) Mapped(FaultResource fault) => (fault.Vm, fault.MemoryInstance, fault.Frame);

    private static (string, string?, long, long, int) Totals(DimmFaults item) => (item.Host, item.Dimm?.Label, item.Uncorrected, item.Corrected, item.DistinctFrames);

    private static DateTimeOffset Midnight(int days) => new DateTimeOffset(Noon.Date, TimeSpan.Zero).AddDays(days);

    private static async Task<ItemList<FaultResource>> ListAsync(HttpClient client, string query = "") =>
        await (await client.GetAsync(new Uri(Routes.Faults + query, UriKind.Relative))).ReadAsync(FleetJson.Default.ItemListFaultResource);

    private static async Task<FaultSummary> SummaryAsync(HttpClient client, string query = "") =>
        await (await client.GetAsync(new Uri(Routes.FaultSummary + query, UriKind.Relative))).ReadAsync(FleetJson.Default.FaultSummary);
}
