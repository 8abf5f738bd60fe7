using System.Net;
using CsCheck;
using Fleet.Api.Agents;
using Fleet.Api.Pages;
using Fleet.Api.Problems;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Faults;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Pages;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Fleet.Api.Tests;

public sealed class ReportTests
{
    [Fact]
    [Trait("Invariant", "I5")]
    public async Task Reports_SentOverlappingReplayedAndConcurrently_TakeEffectOnce()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var round = 0;
        await Gen.Select(Gen.Int[1, 30], Gen.Select(Gen.Int[0, 29], Gen.Int[1, 12]).Array[1, 20]).SampleAsync(
            async (length, sends) =>
            {
                var vm = await api.Admin.CreateVmAsync($"vm-{Interlocked.Increment(ref round)}", "host-a");
                agent.SpoolId = Guid.NewGuid().ToString("N");
                var spool = Enumerable.Range(1, length)
                    .Select(sequence => sequence % 3 == 0 ? TestAgent.Poison(sequence, vm, sequence) : TestAgent.Hit(sequence, vm, 7))
                    .ToArray();
                await Task.WhenAll(sends.Select(async send =>
                {
                    var (start, count) = send;
                    using var response = await agent.SendAsync([.. spool.Skip(start % length).Take(count)]);
                    Assert.True(response.StatusCode is HttpStatusCode.OK or HttpStatusCode.Conflict);
                }));
                var result = await agent.ReportAsync(spool);
                Assert.Equal(length, result.Applied);
                Assert.Equal(length, (await agent.ReportAsync(spool)).Applied);

                var pages = await api.Admin.GetPagesAsync(vm.Id);
                Assert.Equal(spool.Where(report => report.Kind == AgentReport.Poison).Select(report => report.Frame), pages.Items.Select(page => page.Frame));
                var hits = await HitsAsync(api, vm.Id);
                Assert.Equal(spool.LongCount(report => report.Kind == AgentReport.Hit), hits.Sum(hit => hit.Count));
            },
            iter: 20,
            threads: 1);
    }

    [Fact]
    [Trait("Invariant", "I5")]
    public async Task Reports_Replayed_DoNotBumpThePageVersion()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var vm = await api.Admin.CreateVmAsync("vm-1", "host-a");
        await agent.ReportAsync(TestAgent.Poison(1, vm, 5));
        var first = (await api.Admin.GetPagesAsync("vm-1")).Items[0];
        await agent.ReportAsync(TestAgent.Poison(1, vm, 5));
        Assert.Equal(first.Version, (await api.Admin.GetPagesAsync("vm-1")).Items[0].Version);

        await agent.ReportAsync(TestAgent.Poison(2, vm, 5));
        var again = (await api.Admin.GetPagesAsync("vm-1")).Items[0];
        Assert.True(again.Version > first.Version);
        Assert.Equal(first.AddedGeneration, again.AddedGeneration);
        Assert.Equal(("srar", "memory-failure", "host-a"), (again.Class, again.Source, again.FirstHost));
    }

    [Fact]
    public async Task Reports_WithAGap_AreRefusedWithTheExpectedSequence()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var vm = await api.Admin.CreateVmAsync("vm-1", "host-a");
        await agent.ReportAsync(TestAgent.Poison(1, vm, 1));

        var problem = await (await agent.SendAsync(TestAgent.Poison(3, vm, 3))).ProblemAsync(HttpStatusCode.Conflict, "spool-gap");
        Assert.Equal(2, problem.GetProperty("expected").GetInt64());
        Assert.Single((await api.Admin.GetPagesAsync("vm-1")).Items);
        Assert.Equal(1, (await agent.ReportAsync()).Applied);
    }

    [Fact]
    public async Task Reports_OfASupersededAgent_AreRefused()
    {
        await using var api = await ApiHost.StartAsync();
        var old = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var vm = await api.Admin.CreateVmAsync("vm-1", "host-a");
        var young = await (await api.EnrolAsync("host-a")).ClaimAsync();

        await (await old.SendAsync(TestAgent.Poison(1, vm, 1))).ProblemAsync(HttpStatusCode.Conflict, "agent-superseded");
        await (await old.BeatAsync()).ProblemAsync(HttpStatusCode.Conflict, "agent-superseded");
        young.SpoolId = old.SpoolId;
        Assert.Equal(1, (await young.ReportAsync(TestAgent.Poison(1, vm, 1))).Applied);
    }

    [Fact]
    [Trait("Invariant", "I7")]
    [Trait("Invariant", "I8")]
    public async Task Reports_ThatCanNeverApply_AreRejectedOneByOneAndTheSequenceMovesOn()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await api.EnrolAsync("host-b");
        var mine = await api.Admin.CreateVmAsync("mine", "host-a");
        var theirs = await api.Admin.CreateVmAsync("theirs", "host-b");
        var result = await agent.ReportAsync(
            TestAgent.Poison(1, theirs, 1),
            TestAgent.Poison(2, mine with { Id = "nobody" }, 1),
            TestAgent.Poison(3, mine with { MemoryInstance = mine.MemoryInstance - 1 }, 1),
            TestAgent.Poison(4, mine, 1 << 20),
            TestAgent.Hit(5, theirs, 1),
            TestAgent.Poison(6, mine, 6));

        Assert.Equal(6, result.Applied);
        Assert.Equal(
            [(1, "not-placed-here"), (2, "unknown-vm"), (3, "stale-memory-instance"), (4, "frame-outside-memory"), (5, "not-placed-here")],
            result.Rejected.Select(rejected => ((int)rejected.Sequence, rejected.Code)));
        Assert.Equal(6, (await api.Admin.GetPagesAsync("mine")).Items.Single().Frame);
        Assert.Empty((await api.Admin.GetPagesAsync("theirs")).Items);
        Assert.Empty(await HitsAsync(api, "theirs"));
        Assert.Single(api.Logs, line => line.Level == LogLevel.Warning && line.EventId == 2203);
    }

    /// <summary>A host's clock that steps back between the two must not keep what is behind the report from ever arriving.</summary>
    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Report_WhoseLastTimeIsBeforeItsFirst_IsTakenAndSoIsThePoisonBehindIt()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var vm = await api.Admin.CreateVmAsync("vm-1", "host-a");
        var poison = TestAgent.Poison(3, vm, 6);
        var (early, late) = (poison.FirstAt, poison.FirstAt.AddSeconds(1));
        var fault = poison with { Sequence = 1, Kind = AgentReport.Fault, Shift = null, MemoryFault = new MemoryFault(FaultKinds.Uncorrected, null, 77), FirstAt = late, LastAt = early };
        var hit = TestAgent.Hit(2, vm, 5) with { FirstAt = late, LastAt = early };

        var result = await agent.ReportAsync(fault, hit, poison);

        Assert.Equal((3L, 0), (result.Applied, result.Rejected.Count));
        Assert.Equal(6, (await api.Admin.GetPagesAsync("vm-1")).Items.Single().Frame);
        var stored = (await HitsAsync(api, "vm-1")).Single();
        Assert.Equal((early, late), (stored.FirstAt, stored.LastAt));
        var seen = (await (await api.Admin.GetAsync(new Uri(Routes.Faults, UriKind.Relative))).ReadAsync(FleetJson.Default.ItemListFaultResource)).Items.Single();
        Assert.Equal((early, late), (seen.FirstAt, seen.LastAt));
    }

    [Fact]
    [Trait("Invariant", "I2")]
    [Trait("Invariant", "I8")]
    public async Task Reports_ThatAreMalformed_AreRejectedAloneAndNotQuietly()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var vm = await api.Admin.CreateVmAsync("vm-1", "host-a");
        var (poison, hit) = (TestAgent.Poison(0, vm, 6), TestAgent.Hit(0, vm, 6));
        var seal = poison with { Kind = AgentReport.Seal, Migration = "m-1", PlacementEpoch = 1, TargetVmmInstance = "boot:1:1" };
        (AgentReport Report, string Members)[] malformed =
        [
            (poison with { Kind = "love" }, "$.kind"),
            (poison with { Vm = "-" }, "$.vm"),
            (poison with { Vm = null }, "$.vm"),
            (poison with { Shift = null }, "$.shift"),
            (poison with { Shift = 21 }, "$.frame"),
            (poison with { Origin = "bad" }, "$.origin"),
            (hit with { Count = 0 }, "$.count"),
            (hit with { Access = "smell", Evidence = null, Outcome = "" }, "$.access, $.evidence, $.outcome"),
            (poison with { Kind = AgentReport.Fault }, "$.memoryFault"),
            (seal with { TargetVmmInstance = new string('x', 129) }, "$.targetVmmInstance"),
            (seal with { Migration = "a b", PlacementEpoch = null }, "$.migration, $.placementEpoch"),
        ];
        AgentReport[] spool = [poison with { Frame = 1 }, .. malformed.Select(item => item.Report), poison with { Frame = 3 }];
        spool = [.. spool.Select((report, index) => report with { Sequence = index + 1 })];
        var before = await MetricsTests.ReadAsync(api.Admin);

        var result = await agent.ReportAsync(spool);

        Assert.Equal(malformed.Select((_, index) => new RejectedReport(index + 2, "malformed-report")), result.Rejected);
        Assert.Equal(spool.Length, result.Applied);
        Assert.Equal([1L, 3], (await api.Admin.GetPagesAsync("vm-1")).Items.Select(page => page.Frame));
        Assert.Empty(await HitsAsync(api, "vm-1"));
        const string counted = "fleet_reports_rejected{code=\"malformed-report\"}";
        var after = await MetricsTests.ReadAsync(api.Admin);
        Assert.True(after[counted] - before.GetValueOrDefault(counted) >= malformed.Length);
        Assert.DoesNotContain(after.Keys, name => name.Contains("love", StringComparison.Ordinal));

        // The first ten by their members, all by their number.
        var told = api.Logs.Where(line => line.EventId == 2420).ToList();
        Assert.Equal(10, told.Count);
        Assert.All(told.Zip(malformed), pair => Assert.EndsWith($": {pair.Second.Members}", pair.First.Text, StringComparison.Ordinal));
        Assert.All(told, line => Assert.Equal(LogLevel.Warning, line.Level));
        Assert.StartsWith("11 reports", Assert.Single(api.Logs, line => line.EventId == 2203).Text, StringComparison.Ordinal);

        // Sent again they are replays.
        Assert.Empty((await agent.ReportAsync(spool)).Rejected);
    }

    /// <summary>An agent newer than the control plane may know more classes and sources; the page is poisoned all the same.</summary>
    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Poison_OfAClassAndSourceThatAreNotKnown_IsTakenAsUnknown()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var vm = await api.Admin.CreateVmAsync("vm-1", "host-a");

        Assert.Empty((await agent.ReportAsync(TestAgent.Poison(1, vm, 5) with { Class = "cxl", Source = "firmware" })).Rejected);

        var page = Assert.Single((await api.Admin.GetPagesAsync("vm-1")).Items);
        Assert.Equal((5, "unknown", "memory-failure"), (page.Frame, page.Class, page.Source));
    }

    [Fact]
    [Trait("Invariant", "I8")]
    public async Task Hits_ThatAgree_CoalesceAcrossRequests()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var vm = await api.Admin.CreateVmAsync("vm-1", "host-a");
        await agent.ReportAsync(TestAgent.Hit(1, vm, 7, count: 3), TestAgent.Hit(2, vm, 7));
        await agent.ReportAsync(TestAgent.Hit(3, vm, 7, count: 5), TestAgent.Hit(4, vm, 7) with { Access = "write" });

        var hits = await HitsAsync(api, "vm-1");
        Assert.Equal([("read", 9L), ("write", 1L)], hits.Select(hit => (hit.Access, hit.Count)));
        Assert.Equal(TimeSpan.FromSeconds(3), hits[0].LastAt - hits[0].FirstAt);
        Assert.Equal("0x7000", hits[0].GuestPhysicalAddress);
        Assert.Empty((await (await api.Admin.GetAsync(new Uri("/v1/hits?since=2030-01-01T00:00:00Z", UriKind.Relative))).ReadAsync(FleetJson.Default.ItemListHitResource)).Items);
    }

    [Fact]
    [Trait("Invariant", "I5")]
    [Trait("Invariant", "I7")]
    [Trait("Invariant", "I8")]
    public async Task MarkersLost_AreAChangeOfTheVmOnceAndOnlyOnTheWordOfItsHost()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var other = await (await api.EnrolAsync("host-b")).ClaimAsync();
        var vm = await api.Admin.CreateVmAsync("vm-1", "host-a");
        var lost = TestAgent.Hit(1, vm, 5, count: 3) with { Kind = AgentReport.MarkerLost, Access = null, Evidence = null, Outcome = null };

        await agent.ReportAsync(lost);
        await agent.ReportAsync(lost);
        Assert.Equal("not-placed-here", (await other.ReportAsync(lost)).Rejected.Single().Code);
        Assert.Equal("frame-outside-memory", (await agent.ReportAsync(lost with { Sequence = 2, Frame = 1 << 20 })).Rejected.Single().Code);
        Assert.Equal("malformed-report", (await agent.ReportAsync(lost with { Sequence = 3, PlacementEpoch = null })).Rejected.Single().Code);

        var change = (await (await api.Admin.GetAsync(new Uri("/v1/changes?resource=vms/vm-1&kind=pages.marker-lost", UriKind.Relative)))
            .ReadAsync(FleetJson.Default.ChangeList)).Items.Single();
        var payload = change.Data!.Value;
        Assert.Equal(
            ("host-a", vm.MemoryInstance, 5, 3),
            (payload.GetProperty("host").GetString(), payload.GetProperty("memoryInstance").GetInt64(), payload.GetProperty("frame").GetInt64(), payload.GetProperty("frames").GetInt64()));
        Assert.Equal((lost.FirstAt, lost.LastAt), (payload.GetProperty("confirmedAt").GetDateTimeOffset(), payload.GetProperty("foundAt").GetDateTimeOffset()));
        Assert.Equal(vm.Generation, (await api.Admin.GetPagesAsync("vm-1")).Generation);
    }

    /// <summary>The counts of one host fail neither those whose changes are committed with them nor any sum over them.</summary>
    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Counts_OfAnySize_FailNobodyInTheBatchAndNoSum()
    {
        await using var api = await ApiHost.StartAsync();
        var (a, b) = (await (await api.EnrolAsync("host-a")).ClaimAsync(), await (await api.EnrolAsync("host-b")).ClaimAsync());
        var vm = await api.Admin.CreateVmAsync("vm-a", "host-a");
        await api.Admin.CreateVmAsync("vm-b", "host-b");
        var at = TimeProvider.System.GetUtcNow().AddHours(-5);
        var fault = TestAgent.Poison(3, vm, 6) with
        {
            Kind = AgentReport.Fault, Shift = null, FirstAt = at, LastAt = at, Count = long.MaxValue, MemoryFault = new MemoryFault(FaultKinds.Corrected, null, 77),
        };
        AgentReport[] spool =
        [
            TestAgent.Hit(1, vm, 7, long.MaxValue), TestAgent.Hit(2, vm, 7, long.MaxValue), fault, fault with { Sequence = 4, LastAt = at.AddHours(2) },
        ];
        var writer = api.Services.GetRequiredService<StoreWriter>();
        var (gate, entered) = (new TaskCompletionSource(), new TaskCompletionSource());
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        Task<Outcome<ReportsResult>>? reported = null;
        Task<Outcome<AddPagesResult>>? added = null;
        var view = new DesiredView();
        await foreach (var (name, _) in b.StreamAsync(view, stop))
        {
            if (name == DesiredEvents.SnapshotEnd)
            {
                // Both queue up behind a command that holds the writer, and make one batch.
                var blocker = writer.ExecuteAsync(
                    async scope =>
                    {
                        entered.SetResult();
                        await gate.Task;
                        return scope.Revision;
                    },
                    stop.Token);
                await entered.Task;
                reported = writer.ExecuteAsync(scope => ReportCommand.ApplyAsync(scope, "host-a", new ReportsRequest(a.Incarnation, a.SpoolId, spool), "test"), stop.Token);
                added = writer.ExecuteAsync(scope => PageCommands.AddAsync(scope, "vm-b", new AddPagesRequest([new PageReport(9, 12)], null), "test"), stop.Token);
                gate.SetResult();
                await blocker;
            }
            else if (name == DesiredEvents.Delta)
            {
                await stop.CancelAsync();
            }
        }

        var result = (await reported!).Value!;
        Assert.Equal((4, 0), (result.Applied, result.Rejected.Count));
        Assert.Equal(1, (await added!).Value!.Added);
        Assert.Equal(9, Assert.Single(view.Vms["vm-b"].Pages).Frame);
        Assert.Equal(1L << 40, (await HitsAsync(api, "vm-a")).Single().Count);
        Assert.Equal(1L << 41, (await SummaryAsync(api)).Items.Single().Corrected);

        // As a database from before the limit holds them.
        await writer.ExecuteAsync(scope => scope.Db.FaultHours.ExecuteUpdateAsync(set => set.SetProperty(row => row.Count, long.MaxValue)), CancellationToken.None);
        Assert.Equal(1L << 41, (await SummaryAsync(api)).Items.Single().Corrected);
    }

    private static async Task<FaultSummary> SummaryAsync(ApiHost api) =>
        await (await api.Admin.GetAsync(new Uri(Routes.FaultSummary, UriKind.Relative))).ReadAsync(FleetJson.Default.FaultSummary);

    private static async Task<IReadOnlyList<HitResource>> HitsAsync(ApiHost api, string vm) =>
        (await (await api.Admin.GetAsync(new Uri($"/v1/hits?vm={vm}&limit=1000", UriKind.Relative))).ReadAsync(FleetJson.Default.ItemListHitResource)).Items;
}
