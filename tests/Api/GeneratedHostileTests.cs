using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Fleet.Api.Startup;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Pages;
using Microsoft.Extensions.Logging;

namespace Fleet.Api.Tests;

/// <summary>Thousands of requests made from the OpenAPI document, by an administrator, by an agent, and by nobody.</summary>
[Collection(Alone.Name)]
public sealed class GeneratedHostileTests(ITestOutputHelper output)
{
    // With a number that was never issued an agent says, rightly or not, that the store is an old one, and every VM is quarantined.
    private static readonly string[] Startling = ["ClaimHost", "StateHost", "SendHeartbeat", "SendReports"];
    private const int Parallel = 8;
    private static readonly bool Full = Environment.GetEnvironmentVariable("FLEET_FULL") == "1";
    private static readonly int Requests = Full ? 24_000 : 3_000;

    [Fact]
    public async Task Requests_MadeFromTheDocument_NeverFailTheServerNorFillItsMemory()
    {
        // As the program logs, so that the lines captured here are not what is measured.
        await using var api = await ApiHost.StartAsync(null, null, "--Logging:LogLevel:Microsoft.AspNetCore=Warning");
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await api.EnrolAsync("host-b");
        await api.Admin.CreateVmAsync("vm-1", "host-a");
        var operations = (await ApiOperation.ReadAllAsync(api)).Where(operation => !Startling.Contains(operation.Id)).ToList();
        using var document = JsonDocument.Parse(await api.Client(null).GetStringAsync(new Uri("/openapi/v1.json", UriKind.Relative)));

        // Once before measuring, so that what is made on first use is not counted.
        await SendAsync(api, agent, operations, document.RootElement, seed: 0, Requests / 10);
        var before = Measure();
        var answers = await SendAsync(api, agent, operations, document.RootElement, seed: 1, Requests);
        var after = Measure();
        output.WriteLine($"{Requests} requests: {string.Join(", ", answers.Select(answer => $"{answer.Key}: {answer.Value}"))}");
        output.WriteLine($"managed heap {before.Heap >> 10} KiB before, {after.Heap >> 10} KiB after; working set {before.WorkingSet >> 20} MiB before, {after.WorkingSet >> 20} MiB after");

        var faults = api.Logs.Where(line => line.Level >= LogLevel.Error).Select(line => line.Text).Distinct().ToList();
        Assert.True(faults.Count == 0, string.Join('\n', faults));
        Assert.DoesNotContain(answers, answer => answer.Key >= 500);
        Assert.True(answers.GetValueOrDefault(400) > Requests / 10, "Hardly anything was refused: the requests are not hostile.");
        Assert.True(answers.Where(answer => answer.Key < 300).Sum(answer => answer.Value) > Requests / 50, "Hardly anything was accepted: the requests are refused before they are looked at.");
        Assert.True(after.Heap - before.Heap < 32 << 20, $"The managed heap grew from {before.Heap} to {after.Heap} bytes.");
        Assert.True(after.WorkingSet - before.WorkingSet < 256 << 20, $"The working set grew from {before.WorkingSet} to {after.WorkingSet} bytes.");
        await AssertRightAsync(api);
    }

    [Fact]
    public async Task AgentsNumbers_MadeFromTheDocument_NeverFailTheServer()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var operations = (await ApiOperation.ReadAllAsync(api)).Where(operation => Startling.Contains(operation.Id)).ToList();
        using var document = JsonDocument.Parse(await api.Client(null).GetStringAsync(new Uri("/openapi/v1.json", UriKind.Relative)));
        Assert.DoesNotContain(await SendAsync(api, agent, operations, document.RootElement, seed: 2, Requests / 10), answer => answer.Key >= 500);
        Assert.Equal("ready", await api.Client(null).GetStringAsync(new Uri("/health/ready", UriKind.Relative)));
        Assert.Equal(HttpStatusCode.OK, (await api.Admin.GetAsync(new Uri(Routes.Vms, UriKind.Relative))).StatusCode);
    }

    [Fact]
    public async Task Bodies_ThatCreepIn_AreEndedAndTheServerGoesOn()
    {
        await using var api = await ApiHost.StartAsync();
        var connections = await Task.WhenAll(Enumerable.Range(0, 50).Select(_ => CreepAsync(api)));
        var answers = await Task.WhenAll(connections.Select(async connection =>
        {
            using (connection)
            {
                using var reader = new StreamReader(connection.GetStream());
                using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(60));
                return await reader.ReadToEndAsync(deadline.Token);
            }
        }));

        Assert.All(answers, answer => Assert.StartsWith("HTTP/1.1 408", answer, StringComparison.Ordinal));
        Assert.Contains("request-timeout", answers[0], StringComparison.Ordinal);
        await AssertRightAsync(api);
    }

    [Fact]
    public async Task Bodies_LargerThanTheirRouteTakes_AreRefused()
    {
        await using var api = await ApiHost.StartAsync();
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        foreach (var (client, path, limit) in new[]
        {
            (api.Client(null), Routes.Enroll, RequestLimits.AnonymousBody), (api.Admin, Routes.Tokens, RequestLimits.SmallBody),
            (api.Admin, Routes.JoinTokens, RequestLimits.SmallBody), (api.Admin, Routes.Pages("vm-1"), RequestLimits.LargeBody),
            (agent.Client, Routes.Credential("host-a"), RequestLimits.SmallBody), (agent.Client, Routes.Claim("host-a"), RequestLimits.SmallBody),
            (agent.Client, Routes.Reports("host-a"), 16 << 20), (api.Admin, Routes.Reset("vm-1"), RequestLimits.SmallBody),
        })
        {
            var below = await client.SendAsync(Blank(path, limit));
            Assert.NotEqual(HttpStatusCode.RequestEntityTooLarge, below.StatusCode);
            await (await client.SendAsync(Blank(path, limit + 1))).ProblemAsync(HttpStatusCode.RequestEntityTooLarge, "body-too-large");
        }
    }

    private static HttpRequestMessage Blank(string path, long length)
    {
        var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = new StringContent(new string(' ', (int)length), Encoding.UTF8, "application/json") };
        request.Headers.ExpectContinue = true;
        return request;
    }

    private static async Task<TcpClient> CreepAsync(ApiHost api)
    {
        var connection = new TcpClient();
        await connection.ConnectAsync(api.Url.Host, api.Url.Port);
        await connection.GetStream().WriteAsync(Encoding.ASCII.GetBytes(
            $"POST {Routes.JoinTokens} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.AdminToken}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{\"host\":"));
        return connection;
    }

    private static async Task<SortedDictionary<int, int>> SendAsync(
        ApiHost api, TestAgent agent, List<ApiOperation> operations, JsonElement document, int seed, int count)
    {
        var counts = new SortedDictionary<int, int>();
        var streams = operations.FindAll(operation => operation.Id != "StreamDesiredState");
        await System.Threading.Tasks.Parallel.ForEachAsync(
            Enumerable.Range(0, Parallel),
            new ParallelOptions { MaxDegreeOfParallelism = Parallel },
            async (worker, cancellationToken) =>
            {
                var fuzzer = new SchemaFuzzer(document, (seed * 1000) + worker);
                var nobody = api.Client(null);
                for (var i = worker; i < count; i += Parallel)
                {
                    var operation = streams[i / Parallel % streams.Count];
                    using var request = fuzzer.Make(operation, "host-a");
                    using var response = await (i % 97 == 0 ? nobody : operation.IsAgents ? agent.Client : api.Admin).SendAsync(request, cancellationToken);
                    var text = await response.Content.ReadAsStringAsync(cancellationToken);
                    Check(operation, response, text);
                    lock (counts)
                    {
                        counts[(int)response.StatusCode] = counts.GetValueOrDefault((int)response.StatusCode) + 1;
                    }
                }
            });
        return counts;
    }

    private static void Check(ApiOperation operation, HttpResponseMessage response, string text)
    {
        var status = (int)response.StatusCode;
        if (status < 400)
        {
            return;
        }

        // Kestrel itself answers what is not HTTP; everything else is a problem with a code, and tells nothing of the inside.
        Assert.True(response.Content.Headers.ContentType?.MediaType == "application/problem+json" || text.Length == 0, $"{operation}: {status} {text}");
        Assert.DoesNotContain("Exception", text, StringComparison.Ordinal);
        Assert.DoesNotContain("System.", text, StringComparison.Ordinal);
        Assert.True(text.Length < 128 * 1024, $"{operation}: a refusal of {text.Length} bytes.");
    }

    private static (long Heap, long WorkingSet) Measure()
    {
        var heap = GC.GetTotalMemory(forceFullCollection: true);
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
        using var process = Process.GetCurrentProcess();
        return (heap, process.WorkingSet64);
    }

    private static async Task AssertRightAsync(ApiHost api)
    {
        var agent = await (await api.EnrolAsync("host-z")).ClaimAsync();
        var vm = await api.Admin.CreateVmAsync("vm-z", "host-z");
        Assert.Equal(2, (await api.Admin.AddPagesAsync("vm-z", new PageReport(7, 12), new PageReport(9, 12))).Added);
        Assert.Equal([7L, 9], (await api.Admin.GetPagesAsync("vm-z")).Items.Select(page => page.Frame));
        Assert.Equal(HttpStatusCode.OK, (await agent.ArmAsync("vm-z")).StatusCode);
        Assert.Equal("armed", Assert.Single((await api.Admin.GetVmAsync("vm-z")).Enforcement).State);
        Assert.True((await agent.ReportAsync(TestAgent.Hit(1, vm, 7))).Applied == 1);
    }
}
