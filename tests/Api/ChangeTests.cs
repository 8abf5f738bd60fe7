using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using Fleet.Api.Changes;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Changes;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Security;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.Api.Tests;

/// <summary>The change log as its readers see it: complete, in order, and honest about what is gone.</summary>
public sealed class ChangeTests
{
    [Fact]
    public async Task EveryCommittedChange_IsInTheProgramsLogWithoutItsContents()
    {
        await using var api = await ApiHost.StartAsync();
        await api.Admin.CreateVmAsync("vm-1", null);
        await api.Admin.PostAsJsonAsync(Routes.Pages("vm-1"), new AddPagesRequest([new PageReport(7, 12)], "what nobody may log"), FleetJson.Default.AddPagesRequest);
        await (await api.Admin.PutVmAsync("vm-2", "host-z")).ProblemAsync(HttpStatusCode.Conflict, "unknown-host");
        var changes = (await ListAsync(api.Admin, "?limit=1000")).Items;

        // The writer stops before the log is compared: it writes its lines after it has answered.
        await api.StopAsync();
        var lines = api.Logs.Where(line => line.EventId == 1003).Select(line => line.Text).ToList();
        Assert.Equal(changes.Select(change => $"Change {change.Revision}: {change.Kind} of {change.Resource} by {change.Actor}"), lines.Take(changes.Count));
        Assert.DoesNotContain(api.Logs, line => line.Text.Contains("nobody may log", StringComparison.Ordinal));
        Assert.All(api.Logs.Where(line => line.EventId == 1003), line => Assert.Equal(Microsoft.Extensions.Logging.LogLevel.Information, line.Level));
    }

    [Fact]
    public async Task List_OfAWholeMigration_HasDataThatIsJson()
    {
        await using var world = await GateWorld.StartAsync();
        await world.GrantAsync();
        var page = await ListAsync(world.Api.Admin, "?limit=1000");
        var sealing = Assert.Single(page.Items, change => change.Kind == ChangeKinds.MigrationSealed);
        Assert.Equal("boot:1:1", sealing.Data!.Value.GetProperty("targetVmmInstance").GetString());
    }

    [Fact]
    public async Task List_WithARowOfPlainText_ShowsItAndTheOthers()
    {
        await using var api = await ApiHost.StartAsync();
        await api.Services.GetRequiredService<StoreWriter>().ExecuteAsync(
            scope => Task.FromResult(scope.Change(ChangeKinds.MigrationSealed, ChangeResources.Migration("m1"), "test", payload: "boot:1:1")), CancellationToken.None);
        await api.Admin.CreateVmAsync("vm-1", null);
        var page = await ListAsync(api.Admin, "?limit=1000");
        Assert.Equal("boot:1:1", Assert.Single(page.Items, change => change.Kind == ChangeKinds.MigrationSealed).Data!.Value.GetString());
        Assert.Contains(page.Items, change => change.Kind == ChangeKinds.VmCreated);
    }

    [Fact]
    public async Task List_PageByPage_IsEveryRevisionOnceInOrderAndFiltersHold()
    {
        await using var api = await ApiHost.StartAsync();
        await api.Admin.CreateVmAsync("vm-1", null);
        await api.Admin.CreateVmAsync("vm-2", null);
        for (var frame = 0; frame < 5; frame++)
        {
            await api.Admin.AddPagesAsync("vm-1", new PageReport(frame, 12));
        }

        var all = new List<ChangeResource>();
        string? after = null;
        do
        {
            var page = await ListAsync(api.Admin, $"?limit=3{(after is null ? "" : $"&after={after}")}");
            all.AddRange(page.Items);
            after = page.Next;
        }
        while (after is not null);

        Assert.Equal(Enumerable.Range(1, all.Count).Select(i => (long)i), all.Select(change => change.Revision));
        Assert.Equal((await ListAsync(api.Admin, "?limit=1")).Revision, all[^1].Revision);
        var pages = await ListAsync(api.Admin, "?resource=vms/vm-1&kind=pages.added");
        Assert.Equal(5, pages.Items.Count);
        Assert.Equal([0L, 1, 2, 3, 4], pages.Items.Select(change => change.Data!.Value.GetProperty("added")[0].GetProperty("frame").GetInt64()));
        Assert.Empty((await ListAsync(api.Admin, $"?since={all[^1].Revision}")).Items);
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task List_WithoutAdmin_HidesWhoMayDoWhatAndAgentsSeeNothing()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var reader = api.Client(await TokenAsync(api, "read"));

        var seen = (await ListAsync(reader)).Items;
        var whole = (await ListAsync(api.Admin)).Items;
        Assert.Equal(whole.Select(change => change.Revision), seen.Select(change => change.Revision));
        Assert.All(seen.Where(change => change.Kind is ChangeKinds.CredentialCreated or ChangeKinds.AgentEnrolled), change => Assert.Equal((null, null), (change.Reason, change.Data)));
        Assert.Contains(seen, change => change.Kind == ChangeKinds.HostClaimed && change.Data is not null);
        await (await agent.Client.GetAsync(new Uri(Routes.Changes, UriKind.Relative))).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
    }

    /// <summary>The names and scopes of tokens are in the reasons.</summary>
    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Changes_WithoutAdmin_NameNoTokenAndNoScope()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await api.EnrolAsync("host-a");
        var made = await (await api.Admin.PostAsJsonAsync(Routes.Tokens, new TokenRequest("payroll", ["pages:clear"]), FleetJson.Default.TokenRequest))
            .ReadAsync(FleetJson.Default.TokenCreated);
        var secret = TokenText.Create();
        Assert.True(TokenText.TryGetId(secret, out var id));
        var rotated = await agent.Client.PostAsJsonAsync(Routes.Credential("host-a"), new RotateRequest(id, TokenText.Hash(secret)), FleetJson.Default.RotateRequest);
        Assert.Equal(HttpStatusCode.OK, rotated.StatusCode);
        Assert.Equal(HttpStatusCode.NoContent, (await api.Admin.DeleteAsync(new Uri(Routes.Token(made.Id), UriKind.Relative))).StatusCode);
        var last = (await api.Admin.CreateVmAsync("vm-1", null)).Version;
        var reader = api.Client(await TokenAsync(api, "read"));
        string[] hidden = [ChangeKinds.CredentialCreated, ChangeKinds.CredentialRotated, ChangeKinds.CredentialRevoked];

        var whole = (await ListAsync(api.Admin)).Items.Where(change => change.Revision <= last).ToList();
        Assert.All(hidden, kind => Assert.Contains(whole, change => change.Kind == kind && change.Reason is not null));
        Assert.Contains(whole, change => change.Reason == "payroll: pages:clear");

        var seen = (await ListAsync(reader)).Items.Where(change => change.Revision <= last).ToList();
        var feed = new ChangeFeed((await ListAsync(reader)).Floor);
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        await foreach (var _ in feed.FollowAsync(reader, cancellationToken: patience.Token))
        {
            if (feed.Last >= last)
            {
                break;
            }
        }

        foreach (var changes in new[] { seen, feed.Changes.Where(change => change.Revision <= last).ToList() })
        {
            Assert.Equal(whole.Select(change => (change.Revision, change.Kind, change.Resource)), changes.Select(change => (change.Revision, change.Kind, change.Resource)));
            Assert.All(
                changes.Where(change => change.Kind.StartsWith("credential.", StringComparison.Ordinal) || change.Kind.StartsWith("join-token.", StringComparison.Ordinal)),
                change => Assert.Equal((null, null), (change.Reason, change.Data)));
        }
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Stream_OfATokenThatIsRevoked_EndsAtOnce()
    {
        await using var api = await ApiHost.StartAsync();
        var (token, other) = (await TokenAsync(api, "read"), api.Client(await TokenAsync(api, "read")));
        Assert.True(TokenText.TryGetId(token, out var id));
        var after = 0L;
        var revoked = await ReadToTheEndAsync(api, api.Client(token), async () =>
        {
            Assert.Equal(HttpStatusCode.NoContent, (await api.Admin.DeleteAsync(new Uri(Routes.Token(id), UriKind.Relative))).StatusCode);
            after = (await api.Admin.CreateVmAsync("vm-1", null)).Version;
        });

        Assert.DoesNotContain(revoked.Changes, change => change.Revision >= after);
        await (await api.Client(token).GetAsync(new Uri(Routes.Changes, UriKind.Relative))).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");

        // Another one's goes on.
        var feed = new ChangeFeed(after - 1);
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        await foreach (var _ in feed.FollowAsync(other, cancellationToken: patience.Token))
        {
            break;
        }

        Assert.Equal(after, feed.Changes[0].Revision);
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Stream_OfATokenThatExpires_EndsThen()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        await using var api = await ApiHost.StartAsync(time: time);
        var made = await (await api.Admin.PostAsJsonAsync(Routes.Tokens, new TokenRequest("short", ["read"], "5s"), FleetJson.Default.TokenRequest))
            .ReadAsync(FleetJson.Default.TokenCreated);
        var after = 0L;
        var expired = await ReadToTheEndAsync(api, api.Client(made.Token), async () =>
        {
            time.Advance(TimeSpan.FromSeconds(5));
            after = (await api.Admin.CreateVmAsync("vm-1", null)).Version;
        });

        Assert.DoesNotContain(expired.Changes, change => change.Revision >= after);
    }

    /// <summary>Follows one stream from the present on, acts at its first event, and reads until the server ends it.</summary>
    internal static async Task<ChangeFeed> ReadToTheEndAsync(ApiHost api, HttpClient client, Func<Task> act)
    {
        var feed = new ChangeFeed((await ListAsync(api.Admin, "?limit=1")).Revision);
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        var events = 0;
        await foreach (var item in feed.FollowAsync(client, cancellationToken: patience.Token))
        {
            if (events++ == 0)
            {
                Assert.Equal(ChangeEvents.Bookmark, item.EventType);
                await act();
            }
        }

        return feed;
    }

    [Fact]
    public async Task Stream_BrokenAndResumedUnderConcurrentWriters_SeesEveryRevisionOnceInOrder()
    {
        await using var api = await ApiHost.StartAsync(args: ["--Fleet:BookmarkInterval=00:00:01"]);
        await api.Admin.CreateVmAsync("vm-1", null);
        var start = (await ListAsync(api.Admin, "?limit=1")).Revision;
        var feed = new ChangeFeed(start);
        const int each = 60, writers = 8;
        var writing = Task.WhenAll(Enumerable.Range(0, writers).Select(async writer =>
        {
            for (var i = 0; i < each; i++)
            {
                await api.Admin.AddPagesAsync("vm-1", new PageReport((writer * each) + i, 12));
            }
        }));
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        while (feed.Changes.Count < each * writers)
        {
            var breakAfter = feed.Changes.Count + 37;
            await foreach (var _ in feed.FollowAsync(api.Admin, cancellationToken: patience.Token))
            {
                if (feed.Changes.Count >= breakAfter || feed.Changes.Count == each * writers)
                {
                    break;
                }
            }
        }

        await writing;
        Assert.Equal(Enumerable.Range(1, each * writers).Select(i => start + i), feed.Changes.Select(change => change.Revision));
    }

    [Fact]
    public async Task Stream_WithAFilter_MovesOnByBookmarksPastWhatDoesNotMatch()
    {
        await using var api = await ApiHost.StartAsync(args: ["--Fleet:BookmarkInterval=00:00:01"]);
        await api.Admin.CreateVmAsync("vm-1", null);
        var feed = new ChangeFeed((await ListAsync(api.Admin, "?limit=1")).Revision);
        long other = 0;
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        await foreach (var item in feed.FollowAsync(api.Admin, "?resource=vms/vm-1", patience.Token))
        {
            if (other == 0)
            {
                Assert.Equal(ChangeEvents.Bookmark, item.EventType);
                other = (await api.Admin.CreateVmAsync("vm-2", null)).Version;
            }
            else if (feed.Last >= other)
            {
                break;
            }
        }

        Assert.Empty(feed.Changes);
    }

    [Fact]
    public async Task Retention_ByCountAndAge_MovesTheFloorAndSaysSoEverywhere()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        await using var api = await ApiHost.StartAsync(time: time, args: ["--Fleet:ChangesKept=1000", "--Fleet:ChangeRetention=01:00:00", "--Fleet:RetentionInterval=1.00:00:00"]);
        var vm = await api.Admin.CreateVmAsync("vm-1", null);
        var early = (await api.Admin.AddPagesAsync("vm-1", new PageReport(1, 12))).Generation;
        await FillAsync(api, 1500);

        await api.Services.GetRequiredService<Retention>().RunAsync(CancellationToken.None);
        var byCount = await ListAsync(api.Admin, "?limit=1000");
        // Those kept, and the one that says so.
        Assert.Equal(byCount.Floor + 1001, byCount.Revision);
        Assert.Equal(byCount.Floor + 1, byCount.Items[0].Revision);
        await GoneAsync(api, $"?since={early}");
        await GoneAsync(api, $"?since={byCount.Revision + 1}");
        await (await api.Admin.GetAsync(new Uri($"{Routes.Pages("vm-1")}?asOf={vm.Generation}", UriKind.Relative))).ProblemAsync(HttpStatusCode.Gone, "changes-gone");
        Assert.Single((await api.Admin.GetPagesAsync("vm-1")).Items);

        time.Advance(TimeSpan.FromHours(2));
        await api.Services.GetRequiredService<Retention>().RunAsync(CancellationToken.None);
        var byAge = await ListAsync(api.Admin);
        Assert.Equal([ChangeKinds.Compacted], byAge.Items.Select(change => change.Kind).Where(kind => kind != ChangeKinds.HostState).TakeLast(1));
        Assert.True(byAge.Items.Count <= 2, "All but the newest were too old.");
        Assert.Empty((await ListAsync(api.Admin, $"?since={byAge.Revision}")).Items);
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task Retention_UnderAnOpenDesiredStream_SendsTheWholeVmWhereTheLogDoesNotReachBack()
    {
        await using var api = await ApiHost.StartAsync(args: ["--Fleet:ChangesKept=1000"]);
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var vm = await api.Admin.CreateVmAsync("vm-1", "host-a");
        await api.Admin.AddPagesAsync("vm-1", new PageReport(1, 12));
        await FillAsync(api, 1500);
        await api.Services.GetRequiredService<Retention>().RunAsync(CancellationToken.None);
        await api.Admin.AddPagesAsync("vm-1", new PageReport(2, 12));

        var reader = api.Services.GetRequiredService<Agents.Push.DesiredReader>();
        await using var snapshot = await api.Services.GetRequiredService<StoreContexts>().OpenSnapshotAsync(CancellationToken.None);
        var row = (await Agents.Push.DesiredReader.FindAsync(snapshot, agent.Host, "vm-1", CancellationToken.None))!;
        Assert.Null(await reader.ReadDeltaAsync(snapshot, row.Vm, vm.Generation, CancellationToken.None));
        Assert.Equal([1L, 2], (await reader.ReadAsync(snapshot, row, agent.Host, CancellationToken.None)).Pages.Select(page => page.Frame));
    }

    [Fact]
    [Trait("Invariant", "I8")]
    public async Task Retention_OfHits_DropsOnlyTheOldestBeyondItsCount()
    {
        await using var api = await ApiHost.StartAsync(args: ["--Fleet:HitsKept=1000", "--Fleet:HitRetention=36500.00:00:00"]);
        var writer = api.Services.GetRequiredService<StoreWriter>();
        await writer.ExecuteAsync(
            scope =>
            {
                scope.Db.Hits.AddRange(Enumerable.Range(1, 1200).Select(frame => new HitRow
                {
                    Vm = "vm-1", Frame = frame, Host = "host-a", Access = "read", Evidence = "uffd", Outcome = "blocked", Count = 1, FirstAt = frame, LastAt = frame,
                }));
                return Task.FromResult(true);
            },
            CancellationToken.None);
        await api.Services.GetRequiredService<Retention>().RunAsync(CancellationToken.None);
        await using var db = api.Services.GetRequiredService<StoreContexts>().OpenReader();
        Assert.Equal(Enumerable.Range(201, 1000).Select(frame => (long)frame), db.Hits.OrderBy(row => row.Frame).Select(row => row.Frame));
    }

    private static Task FillAsync(ApiHost api, int changes) => api.Services.GetRequiredService<StoreWriter>().ExecuteAsync(
        scope =>
        {
            for (var i = 0; i < changes; i++)
            {
                scope.Change("test", $"tests/{i}", "test");
            }

            return Task.FromResult(true);
        },
        CancellationToken.None);

    private static async Task GoneAsync(ApiHost api, string query)
    {
        await (await api.Admin.GetAsync(new Uri(Routes.Changes + query, UriKind.Relative))).ProblemAsync(HttpStatusCode.Gone, "changes-gone");
        using var request = new HttpRequestMessage(HttpMethod.Get, Routes.Changes + query);
        request.Headers.Accept.Add(new MediaTypeWithQualityHeaderValue("text/event-stream"));
        await (await api.Admin.SendAsync(request)).ProblemAsync(HttpStatusCode.Gone, "changes-gone");
    }

    private static async Task<ChangeList> ListAsync(HttpClient client, string query = "") =>
        await (await client.GetAsync(new Uri(Routes.Changes + query, UriKind.Relative))).ReadAsync(FleetJson.Default.ChangeList);

    private static async Task<string> TokenAsync(ApiHost api, string scopes)
    {
        var token = TokenText.Create();
        Assert.True(TokenText.TryGetId(token, out var id));
        await api.Services.GetRequiredService<StoreWriter>().ExecuteAsync(
            scope =>
            {
                var revision = scope.Change(ChangeKinds.CredentialCreated, ChangeResources.Credential(id), "test", payload: "{}");
                scope.Db.Credentials.Add(new CredentialRow { Id = id, Hash = TokenText.Hash(token), Name = "test", Scopes = scopes, Version = revision });
                return Task.FromResult(true);
            },
            CancellationToken.None);
        return token;
    }
}
