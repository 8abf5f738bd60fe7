using System.Net;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Pages;

namespace Fleet.Api.Tests;

public sealed class PageTests
{
    [Fact]
    public async Task Post_WithOneBadPage_TakesNoneAndTellsAll()
    {
        await using var api = await ApiHost.StartAsync();
        var vm = await api.Admin.CreateVmAsync("vm-1", null, [new("0x0", 4 << 20, 4096), new("0x100000000", 4 << 20, 4096)]);
        var problem = await (await api.Admin.PostPagesAsync(
            "vm-1", new(1, 12), new(513, 21), new(1024, 12), new(1, 13), new(-1, 12), new(2, 12, "bad", "worse"))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        Assert.Equal(
            ["$.pages[1].frame", "$.pages[2].frame", "$.pages[3].shift", "$.pages[4].frame", "$.pages[5].class", "$.pages[5].source"],
            problem.GetProperty("errors").EnumerateObject().Select(error => error.Name).Order(StringComparer.Ordinal));
        Assert.Equal((0, vm.Generation), ((await api.Admin.GetVmAsync("vm-1")).PoisonedPages, (await api.Admin.GetVmAsync("vm-1")).Generation));

        await (await api.Admin.PostPagesAsync("vm-1", new PageReport(1, 21))).ProblemAsync(HttpStatusCode.BadRequest, "page-unaligned");
        await (await api.Admin.PostPagesAsync("vm-1", new PageReport(1023, 12), new(1024, 12))).ProblemAsync(HttpStatusCode.BadRequest, "frame-outside-memory");
        await (await api.Admin.PostPagesAsync("vm-1", new PageReport(0, 30))).ProblemAsync(HttpStatusCode.BadRequest, "frame-outside-memory");
        await (await api.Admin.PostPagesAsync("vm-1", new PageReport(long.MaxValue, 12))).ProblemAsync(HttpStatusCode.BadRequest, "frame-outside-memory");
        await (await api.Admin.PostPagesAsync("nobody", new PageReport(1, 12))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
        await (await api.Admin.PostPagesAsync("vm-1", [.. Enumerable.Range(0, 10_001).Select(frame => new PageReport(frame % 1000, 12))]))
            .ProblemAsync(HttpStatusCode.BadRequest, "too-many-pages");
        Assert.Equal(0, (await api.Admin.GetVmAsync("vm-1")).PoisonedPages);
        Assert.Equal((3, 0), Counts(await api.Admin.AddPagesAsync("vm-1", new(1023, 12), new(0x100000, 12), new(512, 12))));
        Assert.Equal((1, 1), Counts(await api.Admin.AddPagesAsync("vm-1", new(512, 21), new(513, 12))));
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task Generation_UnderConcurrentReports_OnlyGrowsAndCountsEveryAdd()
    {
        await using var api = await ApiHost.StartAsync();
        await api.Admin.CreateVmAsync("vm-1", null);
        var results = await Task.WhenAll(Enumerable.Range(0, 16).Select(async client =>
        {
            var generations = new List<long>();
            for (var number = 0; number < 20; number++)
            {
                generations.Add((await api.Admin.AddPagesAsync("vm-1", new PageReport((client * 20) + number, 12))).Generation);
            }

            Assert.Equal(generations.Order(), generations);
            return generations;
        }));

        Assert.Equal(320, results.SelectMany(generations => generations).Distinct().Count());
        Assert.Equal(results.Max(generations => generations[^1]), (await api.Admin.GetVmAsync("vm-1")).Generation);
    }

    [Fact]
    public async Task Delete_NeedsAReasonAndTheExactPage()
    {
        await using var api = await ApiHost.StartAsync();
        await api.Admin.CreateVmAsync("vm-1", null);
        var added = await api.Admin.AddPagesAsync("vm-1", new(512, 21), new(1, 12));
        await (await DeleteAsync("1")).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        await (await DeleteAsync("x?reason=r")).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        await (await DeleteAsync("2?reason=r")).ProblemAsync(HttpStatusCode.NotFound, "unknown-page");
        await (await DeleteAsync("513?reason=r")).ProblemAsync(HttpStatusCode.Conflict, "covered-by-larger");

        var page = (await api.Admin.GetPagesAsync("vm-1")).Items[0];
        await api.Admin.AddPagesAsync("vm-1", new PageReport(1, 12)); // a newer strike
        await (await DeleteAsync("1?reason=r", page.Version)).ProblemAsync(HttpStatusCode.PreconditionFailed, "stale");
        page = (await api.Admin.GetPagesAsync("vm-1")).Items[0];
        Assert.Equal(HttpStatusCode.NoContent, (await DeleteAsync("1?reason=r", page.Version)).StatusCode);
        Assert.Equal(HttpStatusCode.NoContent, (await DeleteAsync("512?reason=r")).StatusCode);
        var list = await api.Admin.GetPagesAsync("vm-1");
        Assert.Empty(list.Items);
        Assert.True(list.Generation > added.Generation);

        Task<HttpResponseMessage> DeleteAsync(string rest, long? version = null)
        {
            var request = new HttpRequestMessage(HttpMethod.Delete, $"/v1/vms/vm-1/pages/{rest}");
            if (version is not null)
            {
                request.Headers.TryAddWithoutValidation("If-Match", $"\"{version}\"");
            }

            return api.Admin.SendAsync(request);
        }
    }

    [Fact]
    public async Task Get_PageByPageAndSince_GivesEachPageOnce()
    {
        await using var api = await ApiHost.StartAsync();
        await api.Admin.CreateVmAsync("vm-1", null);
        var first = await api.Admin.AddPagesAsync("vm-1", [.. Enumerable.Range(0, 5).Select(frame => new PageReport(frame * 2, 12))]);
        await api.Admin.AddPagesAsync("vm-1", new PageReport(1, 12));
        var found = new List<long>();
        string? after = null;
        do
        {
            var list = await api.Admin.GetPagesAsync("vm-1", $"?limit=2{(after is null ? "" : $"&after={after}")}");
            found.AddRange(list.Items.Select(page => page.Frame));
            after = list.Next;
        }
        while (after is not null);

        Assert.Equal([0, 1, 2, 4, 6, 8], found);
        Assert.Equal(1, (await api.Admin.GetPagesAsync("vm-1", $"?since={first.Generation}")).Items.Single().Frame);
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task Get_AsOfAnEarlierGeneration_GivesTheSetAsItWas()
    {
        await using var api = await ApiHost.StartAsync();
        await api.Admin.CreateVmAsync("vm-1", null);
        var history = new List<(long Generation, List<(long, int, string, long)> Pages)>();
        await RememberAsync();
        await api.Admin.AddPagesAsync("vm-1", new(512, 12, "srar"), new(513, 12, "srao"), new(9000, 12));
        await RememberAsync();
        await api.Admin.AddPagesAsync("vm-1", new PageReport(512, 21, "ucna"));
        await RememberAsync();
        await api.Admin.DeleteAsync(new Uri("/v1/vms/vm-1/pages/512?reason=r", UriKind.Relative));
        await RememberAsync();
        await api.Admin.PutVmAsync("vm-1", null, [new("0x0", 32 << 20, 4096)]); // drops frame 9000
        await RememberAsync();
        await api.Admin.AddPagesAsync("vm-1", new PageReport(512, 12, "srar"));
        await RememberAsync();

        Assert.Equal([0, 3, 2, 1, 0, 1], history.Select(item => item.Pages.Count));
        foreach (var (generation, pages) in history)
        {
            Assert.Equal(pages, Keys(await api.Admin.GetPagesAsync("vm-1", $"?asOf={generation}")));
        }

        foreach (var query in new[] { "asOf=0", "asOf=99", "asOf=x", $"asOf={history[0].Generation}&since=1" })
        {
            await (await api.Admin.GetAsync(new Uri($"/v1/vms/vm-1/pages?{query}", UriKind.Relative))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        }

        async Task RememberAsync()
        {
            var list = await api.Admin.GetPagesAsync("vm-1");
            history.Add((list.Generation, Keys(list)));
        }

        static List<(long, int, string, long)> Keys(PageList list) =>
            [.. list.Items.Select(page => (page.Frame, page.Shift, page.Class, page.AddedGeneration))];
    }

    private static (int Added, int Already) Counts(AddPagesResult result) => (result.Added, result.Already);
}
