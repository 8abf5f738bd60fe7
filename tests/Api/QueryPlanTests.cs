using System.Net;
using System.Net.Http.Json;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Migrations;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests;

/// <summary>Tables that only grow are asked through an index: above all inside the one writer.</summary>
public sealed class QueryPlanTests
{
    private readonly Statements _writer = new();
    private readonly Statements _readers = new();

    [Fact]
    public async Task MigrationsOfAVm_AreFoundByAnIndex()
    {
        await using var api = await ApiHost.StartWithAsync(store =>
        {
            store.ConfigureWriter = writer => writer.AddInterceptors(_writer);
            store.ConfigureReader = reader => reader.AddInterceptors(_readers);
        });
        await api.Admin.CreateVmAsync("vm-1", null);

        var parked = await api.Admin.PostAsJsonAsync(Routes.Park("vm-1"), new ParkRequest("test"), FleetJson.Default.ParkRequest);
        await parked.ProblemAsync(HttpStatusCode.Conflict, "not-placed");
        await AssertByIndexAsync(api, _writer, "TargetHost\" IS NULL", "IX_migrations_Vm_Id (Vm=?)");

        var list = await api.Admin.GetAsync(new Uri(Routes.Migrations + "?vm=vm-1", UriKind.Relative));
        Assert.Equal(HttpStatusCode.OK, list.StatusCode);
        await AssertByIndexAsync(api, _readers, "ORDER BY \"m\".\"Id\"", "IX_migrations_Vm_Id (Vm=? AND Id>?)");
    }

    [Fact]
    public async Task HitsOfAnAge_AreFoundByAnIndex()
    {
        await using var store = await TestStore.StartAsync();
        await using var db = store.Contexts.OpenReader();
        await using var command = db.Hits.Where(row => row.LastAt < 1000).OrderBy(row => row.LastAt).Take(10).CreateDbCommand();
        Assert.Contains("IX_hits_LastAt (LastAt<?)", Assert.Single(await Statement.Of(command).PlanAsync(store.Contexts)), StringComparison.Ordinal);
    }

    private static async Task AssertByIndexAsync(ApiHost api, Statements statements, string part, string index)
    {
        bool IsMeant(Statement item) =>
            new[] { "FROM \"migrations\"", "\"Vm\" = ", part }.All(text => item.Text.Contains(text, StringComparison.Ordinal));
        var asked = statements.Sent.Last(IsMeant);
        var plan = await asked.PlanAsync(api.Services.GetRequiredService<StoreContexts>());
        Assert.Contains(plan, step => step.Contains(index, StringComparison.Ordinal));
        Assert.DoesNotContain(plan, step => step.StartsWith("SCAN", StringComparison.Ordinal));
    }
}
