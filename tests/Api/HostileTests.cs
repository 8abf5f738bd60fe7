using System.Net;
using System.Text;
using Fleet.Api.Tests.Support;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Fleet.Api.Tests;

public sealed class HostileTests
{
    private const string Pages = "/v1/vms/vm-1/pages";
    private const string Json = "application/json";

    public static TheoryData<string, string, string?, string, int, string> Bodies => new()
    {
        { "POST", Pages, "{", Json, 400, "malformed-body" },
        { "POST", Pages, "", Json, 400, "malformed-body" },
        { "POST", Pages, "null", Json, 400, "malformed-body" },
        { "POST", Pages, "[]", Json, 400, "malformed-body" },
        { "POST", Pages, "{}", Json, 400, "malformed-body" },
        { "POST", Pages, """{"pages":null}""", Json, 400, "malformed-body" },
        { "POST", Pages, """{"pages":[null]}""", Json, 400, "invalid-request" },
        { "POST", Pages, """{"pages":[{"shift":12}]}""", Json, 400, "malformed-body" },
        { "POST", Pages, """{"pages":[{"frame":1,"shift":12,"frme":1}]}""", Json, 400, "malformed-body" },
        { "POST", Pages, """{"pages":[{"Frame":1,"shift":12}]}""", Json, 400, "malformed-body" },
        { "POST", Pages, """{"pages":[{"frame":1,"frame":2,"shift":12}]}""", Json, 400, "malformed-body" },
        { "POST", Pages, """{"pages":[],"pages":[{"frame":1,"shift":12}]}""", Json, 400, "malformed-body" },
        { "POST", Pages, """{"pages":[{"frame":"1","shift":12}]}""", Json, 400, "malformed-body" },
        { "POST", Pages, """{"pages":[{"frame":1.5,"shift":12}]}""", Json, 400, "malformed-body" },
        { "POST", Pages, """{"pages":[{"frame":1e400,"shift":12}]}""", Json, 400, "malformed-body" },
        { "POST", Pages, """{"pages":[{"frame":99999999999999999999,"shift":12}]}""", Json, 400, "malformed-body" },
        { "POST", Pages, """{"pages":[{"frame":9223372036854775807,"shift":12}]}""", Json, 400, "frame-outside-memory" },
        { "POST", Pages, """{"pages":[{"frame":1,"shift":12,"detectedAt":"yesterday"}]}""", Json, 400, "malformed-body" },
        { "POST", Pages, """{"pages":[{"frame":1,"shift":12}]} trailing""", Json, 400, "malformed-body" },
        { "POST", Pages, """{"pages":[{"frame":1,"shift":12}]}""", "text/plain", 415, "unsupported-media-type" },
        { "POST", Pages, "<pages/>", "application/xml", 415, "unsupported-media-type" },
        { "POST", "/v1/vms/-bad/pages", """{"pages":[]}""", Json, 400, "invalid-id" },
        { "POST", "/v1/vms/a%0a/pages", """{"pages":[]}""", Json, 400, "invalid-id" },
        { "POST", "/v1/vms/%c3%a9/pages", """{"pages":[]}""", Json, 400, "invalid-id" },
        { "POST", "/v1/vms/nobody/pages", """{"pages":[]}""", Json, 404, "unknown-vm" },
        { "PUT", "/v1/vms/vm-2", """{"memory":[{"guestPhysicalAddress":"0x0","bytes":4096,"pageBytes":4096}],"attach":{"kind":"magic"}}""", Json, 400, "invalid-request" },
        { "PUT", "/v1/vms/vm-2", """{"memory":[{"guestPhysicalAddress":"0xfffffffffffff000","bytes":9223372036854771712,"pageBytes":4096}],"attach":{"kind":"handoff"}}""", Json, 400, "invalid-request" },
        { "PUT", "/v1/vms/vm-2", """{"memory":[null],"attach":{"kind":"handoff"}}""", Json, 400, "invalid-request" },
        { "PUT", "/v1/vms/vm-2", """{"memory":[],"attach":{"kind":"handoff"}}""", Json, 400, "invalid-request" },
        { "PUT", "/v1/vms/vm-2", """{"memory":[{"guestPhysicalAddress":0,"bytes":4096,"pageBytes":4096}],"attach":{"kind":"handoff"}}""", Json, 400, "malformed-body" },
        { "PUT", "/v1/vms", "{}", Json, 405, "method-not-allowed" },
        { "GET", "/v1/nothing", null, Json, 404, "not-found" },
        { "GET", "/v1/vms/nobody", null, Json, 404, "unknown-vm" },
        { "GET", "/v1/hosts/nobody", null, Json, 404, "unknown-host" },
        { "GET", "/v1/vms?limit=0", null, Json, 400, "invalid-request" },
        { "GET", "/v1/vms?limit=99999999999999999999", null, Json, 400, "invalid-request" },
        { "GET", "/v1/vms?after=%00", null, Json, 400, "invalid-request" },
        { "GET", Pages + "?after=bm90LWEtbnVtYmVy", null, Json, 400, "invalid-request" },
        { "GET", Pages + "?since=-1", null, Json, 400, "invalid-request" },
        { "GET", "/v1/hits?since=now", null, Json, 400, "invalid-request" },
        { "DELETE", Pages + "/99999999999999999999?reason=x", null, Json, 400, "invalid-request" },
        { "POST", "/v1/join-tokens", """{"host":"a b"}""", Json, 400, "invalid-request" },
        { "POST", "/v1/join-tokens", """{"host":"host-a","expiresIn":"8d"}""", Json, 400, "invalid-request" },
        { "POST", "/v1/join-tokens", """{"host":"host-a","expiresIn":"0s"}""", Json, 400, "invalid-request" },
        { "POST", "/v1/agents/enroll", "{}", Json, 400, "malformed-body" },
    };

    [Fact]
    public async Task Requests_OfEveryHostileKind_GetTheirCodeAndChangeNothing()
    {
        await using var api = await ApiHost.StartAsync();
        await api.Admin.CreateVmAsync("vm-1", null);
        var before = await RevisionAsync(api);
        foreach (var row in Bodies)
        {
            var (method, path, body, type, status, code) = row.Data;
            using var request = new HttpRequestMessage(new HttpMethod(method), path);
            if (body is not null)
            {
                request.Content = new StringContent(body, Encoding.UTF8, type);
            }

            var response = await api.Admin.SendAsync(request);
            try
            {
                var problem = await response.ProblemAsync((HttpStatusCode)status, code);
                Assert.DoesNotContain("Fleet.", problem.ToString(), StringComparison.Ordinal);
                Assert.DoesNotContain("System.", problem.ToString(), StringComparison.Ordinal);
            }
            catch (Exception exception)
            {
                throw new InvalidOperationException($"{method} {path} {body}", exception);
            }
        }

        Assert.Equal(before, await RevisionAsync(api));
        Assert.DoesNotContain(api.Logs, line => line.Level >= LogLevel.Error);
    }

    [Fact]
    public async Task AgentRequests_OfEveryHostileKind_GetTheirCodeAndChangeNothing()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await api.Admin.CreateVmAsync("vm-1", "host-a");
        var before = await RevisionAsync(api);
        const string report = "\"kind\":\"poison\",\"vm\":\"vm-1\",\"memoryInstance\":1,\"frame\":1,\"shift\":12,\"firstAt\":\"2026-01-01T00:00:00Z\",\"lastAt\":\"2026-01-01T00:00:00Z\",\"count\":1";
        var spool = new string('0', 32);
        (string Path, string Body, string Code)[] requests =
        [
            ("reports", "{}", "malformed-body"),
            ("reports", $$"""{"incarnation":1,"spoolId":"x","reports":[]}""", "invalid-request"),
            ("reports", $$"""{"incarnation":1,"spoolId":"{{spool}}","reports":[null]}""", "invalid-request"),
            ("reports", $$"""{"incarnation":1,"spoolId":"{{spool}}","reports":[null,{"sequence":2,{{report}}}]}""", "invalid-request"),
            ("reports", $$"""{"incarnation":1,"spoolId":"{{spool}}","reports":[{"sequence":0,{{report}}}]}""", "invalid-request"),
            ("reports", $$"""{"incarnation":1,"spoolId":"{{spool}}","reports":[{"sequence":1,{{report}}},{"sequence":3,{{report}}}]}""", "invalid-request"),
            ("reports", $$"""{"incarnation":1,"spoolId":"{{spool}}","reports":[{{report}}]}""", "malformed-body"),
            ("heartbeat", """{"incarnation":1,"vms":[null]}""", "invalid-request"),
            ("heartbeat", """{"incarnation":1,"vms":[{"vm":"vm-1","memoryInstance":1,"generation":1,"armedGeneration":1,"digest":null,"state":"armed","reason":null,"exceptions":[]}]}""", "invalid-request"),
            ("heartbeat", """{"incarnation":1,"vms":[{"vm":"vm-1","memoryInstance":1,"generation":1,"armedGeneration":null,"digest":null,"state":"great","reason":null,"exceptions":[null]}]}""", "invalid-request"),
            ("claim", """{"bootId":"","agentVersion":"1","kernel":"6","capabilities":{}}""", "invalid-request"),
            ("claim", """{"bootId":"b","agentVersion":"1","kernel":"6","capabilities":{"a":null}}""", "invalid-request"),
            ("claim", """{"bootId":"b\n","agentVersion":"1","kernel":"6","capabilities":{}}""", "invalid-request"),
        ];
        foreach (var (path, body, code) in requests)
        {
            var response = await agent.Client.SendJsonAsync(HttpMethod.Post, $"/v1/hosts/host-a/{path}", body);
            await response.ProblemAsync(HttpStatusCode.BadRequest, code);
        }

        await (await agent.Client.GetAsync(new Uri("/v1/hosts/host-a/desired?incarnation=x", UriKind.Relative))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        await (await agent.Client.GetAsync(new Uri("/v1/hosts/host-a/desired", UriKind.Relative))).ProblemAsync(HttpStatusCode.BadRequest, "invalid-request");
        Assert.Equal(before, await RevisionAsync(api));
        Assert.DoesNotContain(api.Logs, line => line.Level >= LogLevel.Error);
    }

    [Fact]
    public async Task Post_BodyTooLarge_IsRefusedWithoutBeingRead()
    {
        await using var api = await ApiHost.StartAsync();
        await api.Admin.CreateVmAsync("vm-1", null);
        using var request = new HttpRequestMessage(HttpMethod.Post, Pages) { Content = new ByteArrayContent(new byte[(4 << 20) + 1]) };
        request.Content.Headers.ContentType = new(Json);
        request.Headers.ExpectContinue = true;
        await (await api.Admin.SendAsync(request)).ProblemAsync(HttpStatusCode.RequestEntityTooLarge, "body-too-large");
        Assert.DoesNotContain(api.Logs, line => line.Level >= LogLevel.Error);
    }

    [Fact]
    public async Task Post_WhenTheStoreFails_IsUnavailableAndSaysNothingOfWhy()
    {
        await using var api = await ApiHost.StartAsync();
        await api.Admin.CreateVmAsync("vm-1", null);
        await using var locker = api.Services.GetRequiredService<StoreContexts>().OpenWriter();
        await locker.Database.ExecuteSqlRawAsync("ALTER TABLE pages RENAME TO gone");
        var problem = await (await api.Admin.PostPagesAsync("vm-1", new Contracts.Pages.PageReport(1, 12))).ProblemAsync(HttpStatusCode.ServiceUnavailable, "store-unavailable");
        Assert.DoesNotContain("SQL", problem.ToString(), StringComparison.OrdinalIgnoreCase);
    }

    private static async Task<long> RevisionAsync(ApiHost api)
    {
        await using var db = api.Services.GetRequiredService<StoreContexts>().OpenReader();
        return await db.Counter.Select(row => row.Revision).SingleAsync();
    }
}
