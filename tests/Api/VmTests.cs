using System.Net;
using Fleet.Api.Agents;
using Fleet.Api.Security;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Vms;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests;

public sealed class VmTests
{
    private static readonly MemoryRegion[] Half = [new("0x0", 32 << 20, 4096)];

    [Fact]
    public async Task Put_Repeated_ChangesNothing()
    {
        await using var api = await ApiHost.StartAsync();
        await api.EnrolAsync("host-a");
        var response = await api.Admin.PutVmAsync("vm-1", "host-a");
        Assert.Equal(HttpStatusCode.Created, response.StatusCode);
        var first = await response.ReadAsync(FleetJson.Default.VmResource);
        var again = await api.Admin.PutVmAsync("vm-1", "host-a");

        Assert.Equal(HttpStatusCode.OK, again.StatusCode);
        Assert.Equal($"\"{first.Version}\"", again.Headers.ETag?.Tag);
        Assert.Equal(first.Version, (await again.ReadAsync(FleetJson.Default.VmResource)).Version);
        Assert.Equal((first.Version, first.Version, first.Version), (first.Generation, first.MemoryInstance, first.PlacementEpoch));
        var other = await api.Admin.CreateVmAsync("vm-2", null);
        Assert.Equal(first.Version + 1, other.Version);
    }

    [Fact]
    [Trait("Invariant", "I4")]
    public async Task Put_ThatChangesTheHost_IsRefused()
    {
        await using var api = await ApiHost.StartAsync();
        await api.EnrolAsync("host-a");
        await api.EnrolAsync("host-b");
        await api.Admin.CreateVmAsync("vm-1", "host-a");
        await api.Admin.CreateVmAsync("parked", null);

        await (await api.Admin.PutVmAsync("vm-1", "host-b")).ProblemAsync(HttpStatusCode.Conflict, "use-migration");
        await (await api.Admin.PutVmAsync("vm-1", null)).ProblemAsync(HttpStatusCode.Conflict, "use-migration");
        await (await api.Admin.PutVmAsync("parked", "host-b")).ProblemAsync(HttpStatusCode.Conflict, "use-migration");
        await (await api.Admin.PutVmAsync("vm-3", "nowhere")).ProblemAsync(HttpStatusCode.Conflict, "unknown-host");
        Assert.Equal("host-a", (await api.Admin.GetVmAsync("vm-1")).Host);
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task Put_ThatDropsAPoisonedFrame_NeedsTheRightToClear()
    {
        await using var api = await ApiHost.StartAsync();
        var writer = api.Client(await SecurityTests.MintAsync(api, $"{Scopes.VmsWrite} {Scopes.PagesWrite}"));
        await writer.CreateVmAsync("vm-1", null);
        await writer.AddPagesAsync("vm-1", new(1, 12), new(10_000, 12));

        await (await writer.PutVmAsync("vm-1", null, Half)).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        Assert.Equal(2, (await api.Admin.GetVmAsync("vm-1")).PoisonedPages);
        var before = await api.Admin.GetVmAsync("vm-1");
        var after = await (await api.Admin.PutVmAsync("vm-1", null, Half)).ReadAsync(FleetJson.Default.VmResource);
        Assert.Equal(1, after.PoisonedPages);
        Assert.True(after.Generation > before.Generation);

        // Growing, or shrinking around the pages, drops nothing.
        var grown = await (await writer.PutVmAsync("vm-1", null)).ReadAsync(FleetJson.Default.VmResource);
        Assert.Equal((1, after.Generation), (grown.PoisonedPages, grown.Generation));
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task Delete_ThenPutAgain_NeverReusesANumber()
    {
        await using var api = await ApiHost.StartAsync();
        var seen = new HashSet<long>();
        long last = 0;
        for (var life = 0; life < 5; life++)
        {
            var vm = await api.Admin.CreateVmAsync("vm-1", null);
            var added = await api.Admin.AddPagesAsync("vm-1", new Contracts.Pages.PageReport(life, 12));
            Assert.True(vm.Generation > last && added.Generation > vm.Generation);
            Assert.True(seen.Add(vm.Generation) && seen.Add(added.Generation));
            Assert.Equal(1, added.Added);
            last = added.Generation;
            Assert.Equal(HttpStatusCode.NoContent, (await api.Admin.DeleteAsync(new Uri("/v1/vms/vm-1", UriKind.Relative))).StatusCode);
            await (await api.Admin.GetAsync(new Uri("/v1/vms/vm-1", UriKind.Relative))).ProblemAsync(HttpStatusCode.NotFound, "unknown-vm");
        }
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task Delete_WithPoisonedPages_NeedsTheRightToClear()
    {
        await using var api = await ApiHost.StartAsync();
        var writer = api.Client(await SecurityTests.MintAsync(api, Scopes.VmsWrite));
        await api.Admin.CreateVmAsync("vm-1", null);
        await api.Admin.CreateVmAsync("vm-2", null);
        await api.Admin.AddPagesAsync("vm-1", new Contracts.Pages.PageReport(7, 12));

        await (await writer.DeleteAsync(new Uri("/v1/vms/vm-1", UriKind.Relative))).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        Assert.Equal(HttpStatusCode.NoContent, (await writer.DeleteAsync(new Uri("/v1/vms/vm-2", UriKind.Relative))).StatusCode);

        var vm = await (await api.Admin.GetAsync(new Uri("/v1/vms/vm-1", UriKind.Relative))).ReadAsync(FleetJson.Default.VmResource);
        Assert.Equal(1, vm.PoisonedPages);
    }

    [Fact]
    public async Task IfMatch_Stale_IsRefused()
    {
        await using var api = await ApiHost.StartAsync();
        var vm = await api.Admin.CreateVmAsync("vm-1", null);
        await SendAsync(HttpMethod.Put, $"\"{vm.Version}\"", Half, HttpStatusCode.OK);
        await SendAsync(HttpMethod.Put, $"\"{vm.Version}\"", ApiCalls.Memory64MiB, HttpStatusCode.PreconditionFailed);
        await SendAsync(HttpMethod.Delete, $"\"{vm.Version}\"", null, HttpStatusCode.PreconditionFailed);
        await SendAsync(HttpMethod.Delete, "*", null, HttpStatusCode.NoContent);
        await SendAsync(HttpMethod.Put, "*", Half, HttpStatusCode.PreconditionFailed);

        async Task SendAsync(HttpMethod method, string tag, MemoryRegion[]? memory, HttpStatusCode expected)
        {
            using var request = new HttpRequestMessage(method, "/v1/vms/vm-1");
            request.Headers.TryAddWithoutValidation("If-Match", tag);
            if (memory is not null)
            {
                request.Content = System.Net.Http.Json.JsonContent.Create(new VmRequest(null, memory, new VmAttach("handoff")), FleetJson.Default.VmRequest);
            }

            var response = await api.Admin.SendAsync(request);
            Assert.Equal(expected, response.StatusCode);
        }
    }

    [Fact]
    public async Task List_PageByPage_GivesEachVmOnce()
    {
        await using var api = await ApiHost.StartAsync();
        var ids = Enumerable.Range(0, 7).Select(number => $"vm-{number}").ToList();
        foreach (var id in ids)
        {
            await api.Admin.CreateVmAsync(id, null);
        }

        var found = new List<string>();
        string? after = null;
        do
        {
            var list = await (await api.Admin.GetAsync(new Uri($"/v1/vms?limit=3{(after is null ? "" : $"&after={after}")}", UriKind.Relative)))
                .ReadAsync(FleetJson.Default.ItemListVmResource);
            found.AddRange(list.Items.Select(vm => vm.Id));
            after = list.Next;
        }
        while (after is not null);

        Assert.Equal(ids, found);
    }

    /// <summary>Ids that come and go must not fill the memory.</summary>
    [Fact]
    public async Task Delete_OfVmsThatWereRead_LeavesNoDigestOfThem()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var digests = api.Services.GetRequiredService<DigestCache>();
        await api.Admin.CreateVmAsync("stays", "host-a");
        await agent.ArmAsync("stays");
        for (var number = 0; number < 20; number++)
        {
            await api.Admin.CreateVmAsync($"vm-{number}", "host-a");
            Assert.Equal(HttpStatusCode.OK, (await agent.ArmAsync($"vm-{number}")).StatusCode);
            Assert.Equal(2, digests.Count);
            Assert.Equal(HttpStatusCode.NoContent, (await api.Admin.DeleteAsync(new Uri(Routes.Vm($"vm-{number}"), UriKind.Relative))).StatusCode);
        }

        Assert.Equal(1, digests.Count);
    }

    [Fact]
    public async Task Put_WithSeveralErrors_TellsThemAll()
    {
        await using var api = await ApiHost.StartAsync();
        var problem = await (await api.Admin.SendJsonAsync(HttpMethod.Put, "/v1/vms/vm-1", """
            {"host":"-","memory":[{"guestPhysicalAddress":"0x1","bytes":4096,"pageBytes":4096},
             {"guestPhysicalAddress":"0x0","bytes":5,"pageBytes":4096},{"guestPhysicalAddress":"0x100000","bytes":8192,"pageBytes":4096},
             {"guestPhysicalAddress":"0x101000","bytes":4096,"pageBytes":4096},{"guestPhysicalAddress":"0x0","bytes":4096,"pageBytes":1}],
             "attach":{"kind":"qemu","qmpSocket":null,"memoryFile":"/m","socket":null}}
            """)).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        Assert.Equal(
            ["$.attach.memoryFile", "$.attach.qmpSocket", "$.host", "$.memory[0].guestPhysicalAddress", "$.memory[1].bytes", "$.memory[3]", "$.memory[4].pageBytes"],
            problem.GetProperty("errors").EnumerateObject().Select(error => error.Name).Order(StringComparer.Ordinal));
    }
}
