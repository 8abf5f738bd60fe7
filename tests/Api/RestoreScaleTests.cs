using System.Data.Common;
using Fleet.Api.Restore;
using Fleet.Api.Tests.Support;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hosts;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Diagnostics;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Tests;

/// <summary>
/// A restore is one command of the one writer, before the server listens, and the end of the quarantine another: what they ask of the store and
/// of the change tracker must not multiply with the VMs.
/// </summary>
public sealed class RestoreScaleTests
{
    private const string Attach = """{"kind":"handoff"}""";
    private const string Memory = """[{"guestPhysicalAddress":"0x0","bytes":1099511627776,"pageBytes":4096}]""";

    [Fact]
    public async Task Begin_AsksNoMoreOfTheStoreForMoreVms()
    {
        var few = await BeginAsync(10);
        var many = await BeginAsync(3_000);

        Assert.Equal(few.Commands, many.Commands);
        Assert.Equal(few.Detections, many.Detections);
        Assert.Equal(0, many.Vms);
    }

    [Fact]
    public async Task Statement_WhileOthersAreAwaited_ReadsNoVm()
    {
        var cost = new Cost();
        await using var store = await TestStore.StartAsync(configureWriter: cost.Watch);
        await SeedAsync(store, 3_000);
        await store.WriteAsync(scope => Restore(store).BeginAsync(scope, 0, "test", "test"));
        cost.Reset();

        var taken = await store.WriteAsync(scope => StatementCommand.ApplyAsync(scope, "host-0", new StatementRequest(1, 1, []), "test"));

        Assert.Equal((3_000, 0), (taken.Value.Quarantined, cost.Vms));
    }

    [Fact]
    public async Task End_AsksForManyVmsAtOnce()
    {
        const int vms = 3_000;
        var cost = new Cost();
        await using var store = await TestStore.StartAsync(configureWriter: cost.Watch);
        await SeedAsync(store, vms);
        await store.WriteAsync(scope => Restore(store).BeginAsync(scope, 0, "test", "test"));
        await store.WriteAsync(scope => StatementCommand.ApplyAsync(scope, "host-0", new StatementRequest(1, 1, []), "test"));
        cost.Reset();

        var taken = await store.WriteAsync(scope =>
        {
            cost.Count(scope);
            return StatementCommand.ApplyAsync(scope, "host-1", new StatementRequest(1, 1, []), "test");
        });

        Assert.Equal((0, vms), (taken.Value.Quarantined, cost.Vms));
        Assert.InRange(cost.Detections, 1, vms / 50);
        Assert.InRange(cost.Reads, 1, vms / 50);
        await using var db = store.Contexts.OpenReader();
        Assert.Equal(vms, await db.Placements.CountAsync(row => row.ToRevision == null));
        Assert.Equal(vms, await db.Changes.CountAsync(row => row.Kind == ChangeKinds.QuarantineEnded));
    }

    private static async Task<Cost> BeginAsync(int vms)
    {
        var cost = new Cost();
        await using var store = await TestStore.StartAsync(configureWriter: cost.Watch);
        await SeedAsync(store, vms);
        cost.Reset();
        await store.WriteAsync(scope =>
        {
            cost.Count(scope);
            return Restore(store).BeginAsync(scope, 0, "test", "test");
        });
        return cost;
    }

    private static StoreRestore Restore(TestStore store) =>
        new(store.Writer, store.Services.GetRequiredService<IOptions<StoreOptions>>(), NullLogger<StoreRestore>.Instance);

    /// <summary>On two hosts that have claimed.</summary>
    private static Task<int> SeedAsync(TestStore store, int vms) => store.WriteAsync(scope =>
    {
        var revision = scope.Change("test", "test", "test");
        foreach (var host in new[] { "host-0", "host-1" })
        {
            scope.Db.Hosts.Add(new HostRow { Id = host, State = HostStates.Online, Labels = "{}", Incarnation = 1, BootId = host, Version = revision });
        }

        for (var number = 0; number < vms; number++)
        {
            var (vm, host) = ($"vm-{number:D6}", $"host-{number % 2}");
            scope.Db.Vms.Add(new VmRow
            {
                Id = vm, Host = host, Memory = Memory, Attach = Attach, MemoryInstance = revision, Generation = revision, PlacementEpoch = revision, Version = revision,
            });
            scope.Db.Placements.Add(new PlacementRow { Vm = vm, Host = host, PlacementEpoch = revision, MemoryInstance = revision, FromRevision = revision });
        }

        return Task.FromResult(vms);
    });

    /// <summary>What commands of the writer cost.</summary>
    private sealed class Cost : DbCommandInterceptor, IMaterializationInterceptor
    {
        public int Commands { get; private set; }

        /// <summary>Commands that were not of a batch of changed rows.</summary>
        public int Reads { get; private set; }

        /// <summary>VM rows that were read.</summary>
        public int Vms { get; private set; }

        /// <summary>How often the change tracker looked through everything in it.</summary>
        public int Detections { get; private set; }

        public void Watch(DbContextOptionsBuilder options) => options.AddInterceptors(this);

        public void Reset() => (Commands, Reads, Vms, Detections) = (0, 0, 0, 0);

        public void Count(WriteScope scope) => scope.Db.ChangeTracker.DetectingAllChanges += (_, _) => Detections++;

        public object InitializedInstance(MaterializationInterceptionData materializationData, object entity)
        {
            Vms += entity is VmRow ? 1 : 0;
            return entity;
        }

        public override ValueTask<InterceptionResult<DbDataReader>> ReaderExecutingAsync(
            DbCommand command, CommandEventData eventData, InterceptionResult<DbDataReader> result, CancellationToken cancellationToken = default)
        {
            Commands++;
            Reads += eventData.CommandSource == CommandSource.SaveChanges ? 0 : 1;
            return ValueTask.FromResult(result);
        }

        public override ValueTask<InterceptionResult<int>> NonQueryExecutingAsync(
            DbCommand command, CommandEventData eventData, InterceptionResult<int> result, CancellationToken cancellationToken = default)
        {
            Commands++;
            Reads++;
            return ValueTask.FromResult(result);
        }
    }
}
