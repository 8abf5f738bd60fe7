using System.Net;
using Fleet.Api.Security;
using Fleet.Api.Tests.Support;
using Fleet.Data.Entities;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests;

/// <summary>Every operation of the OpenAPI document against every kind of caller that must not get in, and the one that must.</summary>
public sealed class RouteMatrixTests
{
    private static readonly string[] Anonymous = ["POST /v1/agents/enroll", "GET /health/live", "GET /health/ready"];

    [Fact]
    public async Task EveryRoute_IsInTheDocumentWithItsScope()
    {
        await using var api = await ApiHost.StartAsync();
        var operations = await ApiOperation.ReadAllAsync(api);
        Assert.Equal(Anonymous.Order(), operations.Where(operation => operation.Scopes is null).Select(operation => operation.ToString()).Order());
        foreach (var operation in operations.Where(operation => operation.Scopes is not null))
        {
            Assert.True(operation.Scopes is { Count: > 0 }, $"{operation} declares no scope.");
            Assert.All(operation.Scopes!, scope => Assert.Contains(scope, Scopes.All));
            Assert.Equal(operation.Scopes!.Contains(Scopes.Agent), operation.IsAgents);
        }

        var routes =
            from endpoint in api.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            from method in endpoint.Metadata.GetMetadata<HttpMethodMetadata>()?.HttpMethods ?? ["GET"]
            select $"{method} /{endpoint.RoutePattern.RawText!.TrimStart('/')}";
        Assert.Equal(
            routes.Where(route => route != "GET /openapi/{documentName}.json").Order(StringComparer.Ordinal),
            operations.Select(operation => operation.ToString()).Order(StringComparer.Ordinal));
    }

    /// <summary>The scopes as agreed; the other tests only see that what is declared is also needed.</summary>
    [Theory]
    [InlineData("admin", "CreateToken ListTokens GetToken RevokeToken")]
    [InlineData("hosts:write", "CreateJoinToken ListJoinTokens GetJoinToken RevokeJoinToken LabelHost DrainHost UndrainHost")]
    [InlineData("read", "GetVm ListVms ListPages GetMigration ListMigrations ListHosts GetHost ListHits ListFaults SummarizeFaults ListChanges Metrics")]
    [InlineData("vms:write", "PutVm DeleteVm")]
    [InlineData("pages:write", "AddPages")]
    [InlineData("pages:clear", "ClearPage ResetVm")]
    [InlineData("migrations:write", "PutMigration SwitchOver CompleteMigration AbortMigration ParkVm")]
    [InlineData("migrations:write migrations:fence", "RebuildVm")]
    [InlineData("migrations:fence", "FenceHost ReleaseVm")]
    [InlineData("agent", "StateHost ClaimHost StreamDesiredState GetDesiredVm SendHeartbeat SendReports RotateCredential")]
    public async Task Operations_NeedTheScopesThatWereAgreed(string scopes, string operations)
    {
        await using var api = await ApiHost.StartAsync();
        var declared = (await ApiOperation.ReadAllAsync(api)).ToDictionary(operation => operation.Id, operation => operation.Scopes);
        Assert.All(operations.Split(' '), id => Assert.Equal(scopes.Split(' '), declared[id]!));
    }

    [Fact]
    public async Task EveryOperation_WithoutAValidToken_Is401()
    {
        await using var api = await ApiHost.StartAsync();
        await api.EnrolAsync("host-a");
        foreach (var operation in (await ApiOperation.ReadAllAsync(api)).Where(operation => operation.Scopes is not null))
        {
            var scopes = string.Join(' ', operation.Scopes!);
            await RefusedAsync(operation, api.Client(null), HttpStatusCode.Unauthorized, "unauthenticated");
            await RefusedAsync(operation, api.Client(await MintAsync(api, operation, scopes, row => row.ExpiresAt = 1)), HttpStatusCode.Unauthorized, "unauthenticated");
            await RefusedAsync(operation, api.Client(await MintAsync(api, operation, scopes, row => row.RevokedAt = 1)), HttpStatusCode.Unauthorized, "unauthenticated");
            await RefusedAsync(operation, api.Client(await MintAsync(api, operation, Scopes.Admin, row => row.ExpiresAt = 1)), HttpStatusCode.Unauthorized, "unauthenticated");
        }
    }

    [Fact]
    [Trait("Invariant", "I7")]
    public async Task EveryOperation_WithEveryScopeButItsOwn_Is403()
    {
        await using var api = await ApiHost.StartAsync();
        var (own, other) = (await api.EnrolAsync("host-a"), await api.EnrolAsync("host-b"));
        foreach (var operation in (await ApiOperation.ReadAllAsync(api)).Where(operation => operation.Scopes is not null))
        {
            // For an agent's route that is every scope there is, admin too; for the others, all but what they need and what implies it.
            var wrong = Scopes.All.Where(scope => scope != Scopes.Agent && !operation.Scopes!.Contains(scope) && (operation.IsAgents || scope != Scopes.Admin));
            await RefusedAsync(operation, api.Client(await SecurityTests.MintAsync(api, string.Join(' ', wrong))), HttpStatusCode.Forbidden, "forbidden");
            foreach (var missing in operation.Scopes!.Where(_ => operation.Scopes!.Count > 1))
            {
                var rest = string.Join(' ', operation.Scopes!.Where(scope => scope != missing));
                await RefusedAsync(operation, api.Client(await SecurityTests.MintAsync(api, rest)), HttpStatusCode.Forbidden, "forbidden");
            }

            await RefusedAsync(operation, other.Client, HttpStatusCode.Forbidden, operation.IsAgents ? "wrong-host" : "forbidden");
            if (!operation.IsAgents)
            {
                await RefusedAsync(operation, own.Client, HttpStatusCode.Forbidden, "forbidden");
            }
        }
    }

    [Fact]
    public async Task EveryOperation_WithItsScopeAlone_LetsIn()
    {
        await using var api = await ApiHost.StartAsync();
        await api.EnrolAsync("host-a");
        foreach (var operation in (await ApiOperation.ReadAllAsync(api)).Where(operation => operation.Scopes is not null))
        {
            var response = await operation.SendAsync(api.Client(await MintAsync(api, operation, string.Join(' ', operation.Scopes!))), "host-a");
            Assert.False(
                response.StatusCode is HttpStatusCode.Unauthorized or HttpStatusCode.Forbidden || (int)response.StatusCode >= 500,
                $"{operation} with {string.Join(' ', operation.Scopes!)}: {(int)response.StatusCode}");
        }
    }

    private static Task<string> MintAsync(ApiHost api, ApiOperation operation, string scopes, Action<CredentialRow>? change = null) =>
        SecurityTests.MintAsync(api, scopes, row =>
        {
            row.Host = operation.IsAgents && scopes == Scopes.Agent ? "host-a" : null;
            change?.Invoke(row);
        });

    private static async Task RefusedAsync(ApiOperation operation, HttpClient client, HttpStatusCode status, string code)
    {
        var response = await operation.SendAsync(client, "host-a");
        Assert.True(response.StatusCode == status, $"{operation}: {(int)response.StatusCode}, not {(int)status}.");
        await response.ProblemAsync(status, code);
        Assert.Equal(status == HttpStatusCode.Unauthorized ? "Bearer" : string.Empty, response.Headers.WwwAuthenticate.ToString());
        client.CancelPendingRequests();
    }
}
