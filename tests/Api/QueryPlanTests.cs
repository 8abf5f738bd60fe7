using System.Net;
using System.Net.Http.Json;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Migrations;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.Api.Tests;

/// <summary>Tables that only grow are asked through an index: above all inside the one writer.</summary>
public sealed class QueryPlanTests
{
    private readonly Statements _writer = new();
    private readonly Statements _readers = new();

    [Fact]
    public async Task MigrationsOfAVm_AreFoundByAnIndex()
    {
        await using var api = await ApiHost.StartWithAsync(Observe);
        await api.Admin.CreateVmAsync("vm-1", null);

        var parked = await api.Admin.PostAsJsonAsync(Routes.Park("vm-1"), new ParkRequest("test"), FleetJson.Default.ParkRequest);
        await parked.ProblemAsync(HttpStatusCode.Conflict, "not-placed");
        await AssertByIndexAsync(api, _writer, "TargetHost\" IS NULL", "IX_migrations_Vm_Id (Vm=?)");

        var list = await api.Admin.GetAsync(new Uri(Routes.Migrations + "?vm=vm-1", UriKind.Relative));
        Assert.Equal(HttpStatusCode.OK, list.StatusCode);
        await AssertByIndexAsync(api, _readers, "ORDER BY \"m\".\"Id\"", "IX_migrations_Vm_Id (Vm=? AND Id>?)");
    }

    /// <summary>An agent may name as many VMs as it likes, that nobody knows: it must not keep the one writer busy with them.</summary>
    [Fact]
    [Trait("Invariant", "I7")]
    public async Task HeartbeatOfUnknownVms_RunsNoCommandOfTheWriterAndNoQueryForEach()
    {
        // Its clock stands still, so nothing else writes.
        await using var api = await ApiHost.StartWithAsync(Observe, new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60)));
        var agent = await (await api.EnrolAsync("host-a")).ClaimAsync();
        await api.EnrolAsync("host-b");
        var vm = await api.Admin.CreateVmAsync("vm-b", "host-b");
        await api.Admin.CreateVmAsync("vm-c", null);
        var (written, read) = (_writer.Sent.Count, _readers.Sent.Count);

        var unknown = Enumerable.Range(0, 1000).Select(number => new VmStatus($"nobody-{number}", 1, 1, null, null, "pending", null, []));
        var others = new VmStatus("vm-b", vm.MemoryInstance, vm.Generation, null, null, "pending", null, []);
        var answer = await (await agent.BeatAsync([.. unknown, others])).ReadAsync(FleetJson.Default.HeartbeatResult);

        Assert.Equal(1001, answer.Refetch.Count);
        Assert.Equal(written, _writer.Sent.Count);
        Assert.InRange(_readers.Sent.Count - read, 0, 20);

        // What proves that the database was put back is still found.
        await (await agent.BeatAsync(others with { Generation = vm.Generation + 1 })).ProblemAsync(HttpStatusCode.Conflict, "statement-required");
    }

    [Fact]
    public async Task HitsOfAnAge_AreFoundByAnIndex()
    {
        await using var store = await TestStore.StartAsync();
        await using var db = store.Contexts.OpenReader();
        await using var command = db.Hits.Where(row => row.LastAt < 1000).OrderBy(row => row.LastAt).Take(10).CreateDbCommand();
        Assert.Contains("IX_hits_LastAt (LastAt<?)", Assert.Single(await Statement.Of(command).PlanAsync(store.Contexts)), StringComparison.Ordinal);
    }

    private void Observe(StoreOptions store)
    {
        store.ConfigureWriter = writer => writer.AddInterceptors(_writer);
        store.ConfigureReader = reader => reader.AddInterceptors(_readers);
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
