using System.Net;
using System.Net.Http.Json;
using Fleet.Api.Security;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Security;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Fleet.Api.Tests;

public sealed class SecretLogTests : IDisposable
{
    private readonly DirectoryInfo _state = Directory.CreateTempSubdirectory("fl-");

    /// <summary>Everything that is done with a secret, with every log line there is, the framework's own included.</summary>
    [Fact]
    public async Task Logs_AndChangeLogOfTheWholeStory_HoldNoSecret()
    {
        await using var api = await ApiHost.StartAsync(null, null, ApiHost.TraceLogs, "--Logging:LogLevel:Microsoft.AspNetCore=Trace");
        var secrets = new List<string> { api.AdminToken };
        var join = await api.Admin.JoinTokenAsync("host-a");
        secrets.Add(join);

        var credentialFile = Path.Combine(_state.FullName, "credential");
        await using (var agent = await RunningAgent.StartAsync(_state.FullName, api.Url, ("JoinToken", join)))
        {
            await agent.SaysAsync(1631);
            secrets.Add(await File.ReadAllTextAsync(credentialFile));
            await agent.Get<HostAgent.ControlPlane.CredentialRotation>().RotateAsync(CancellationToken.None);
            await agent.SaysAsync(1641);
            secrets.Add(await File.ReadAllTextAsync(credentialFile));
            AssertNone(agent.Logs.Select(line => line.Text), secrets);
        }

        var created = await TokenTests.CreateAsync(api, new TokenRequest("ci", [Scopes.Read]));
        var (wrong, spent) = (TokenText.Create(), TokenText.Create());
        Assert.True(TokenText.TryGetId(spent, out var id));
        secrets.AddRange([created.Token, wrong, spent]);
        var client = api.Client(created.Token);
        await client.GetAsync(new Uri(Routes.Vms, UriKind.Relative));
        await (await client.PutVmAsync("vm-1", null)).ProblemAsync(HttpStatusCode.Forbidden, "forbidden");
        await (await api.Client(wrong).GetAsync(new Uri(Routes.Vms, UriKind.Relative))).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");
        await (await api.Client(null).PostAsJsonAsync(Routes.Enroll, new EnrollRequest("host-a", join, id, TokenText.Hash(spent)), FleetJson.Default.EnrollRequest))
            .ProblemAsync(HttpStatusCode.Conflict, "join-token-used");
        await (await api.Client(null).SendJsonAsync(HttpMethod.Post, Routes.Enroll, $$"""{"joinToken":"{{wrong}}","x":1}""")).ProblemAsync(HttpStatusCode.BadRequest, "malformed-body");
        await api.Admin.DeleteAsync(new Uri(Routes.Token(created.Id), UriKind.Relative));

        Assert.Contains(api.Logs, line => line.Level == LogLevel.Debug && line.Category.StartsWith("Microsoft.AspNetCore.Authorization", StringComparison.Ordinal));
        AssertNone(api.Logs.Select(line => line.Text), secrets);
        await using var db = api.Services.GetRequiredService<StoreContexts>().OpenReader();
        AssertNone((await db.Changes.ToListAsync()).Select(row => $"{row.Resource} {row.Actor} {row.Reason} {row.Payload}"), secrets);
    }

    public void Dispose() => _state.Delete(recursive: true);

    private static void AssertNone(IEnumerable<string> lines, List<string> secrets)
    {
        // The id at the front is no secret, and is in the logs on purpose. The hash would do no harm, but nobody needs it there either.
        var parts = secrets.SelectMany(secret => new[] { secret.Trim()[24..], TokenText.Hash(secret.Trim()) }).ToList();
        foreach (var line in lines)
        {
            Assert.DoesNotContain(parts, part => line.Contains(part, StringComparison.OrdinalIgnoreCase));
            Assert.False(line.Contains("Authorization: Bearer", StringComparison.OrdinalIgnoreCase), line);
        }
    }
}
