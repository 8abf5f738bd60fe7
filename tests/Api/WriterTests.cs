using System.Data.Common;
using Fleet.Api.Tests.Support;
using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Diagnostics;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests;

public sealed class WriterTests
{
    private static Task<long> Log(WriteScope scope, string resource) =>
        Task.FromResult(scope.Change("test", resource, "test"));

    [Fact]
    public async Task Execute_WhileABatchRuns_CommitsWhatQueuedUpTogether()
    {
        var commits = new Commits();
        await using var store = await TestStore.StartAsync(configureWriter: writer => writer.AddInterceptors(commits));
        var gate = new TaskCompletionSource();
        var entered = new TaskCompletionSource();
        var first = store.WriteAsync(async scope =>
        {
            entered.SetResult();
            await gate.Task;
            return await Log(scope, "first");
        });
        await entered.Task;
        var before = commits.Count;
        var queued = Enumerable.Range(0, 300).Select(number => store.WriteAsync(scope => Log(scope, $"queued/{number}"))).ToArray();
        gate.SetResult();
        await first;
        var revisions = await Task.WhenAll(queued);

        Assert.Equal(3, commits.Count - before); // the first, 256, 44
        Assert.Equal(300, revisions.Distinct().Count());
        Assert.Equal(301, await store.ReadAsync(db => db.Changes.CountAsync()));
        Assert.Equal(301, await store.ReadAsync(db => db.Counter.Select(row => row.Revision).SingleAsync()));
    }

    [Fact]
    public async Task Execute_WhenACommandFails_UndoesItAlone()
    {
        await using var store = await TestStore.StartAsync();
        var (gate, blocker) = await BlockAsync(store);
        var good1 = store.WriteAsync(scope => Log(scope, "good/1"));
        var bad = store.WriteAsync<long>(async scope =>
        {
            scope.Change("test", "bad", "test");
            scope.Db.Vms.Add(NewVm("bad"));
            await scope.Db.SaveChangesAsync();
            scope.Db.Vms.Add(NewVm("bad-unsaved"));
            throw new InvalidOperationException("no");
        });
        var good2 = store.WriteAsync(scope => Log(scope, "good/2"));
        gate.SetResult();
        await blocker;

        await Assert.ThrowsAsync<InvalidOperationException>(() => bad);
        Assert.Equal(await good1 + 1, await good2);
        Assert.Equal(["blocker", "good/1", "good/2"], await store.ReadAsync(db => db.Changes.OrderBy(row => row.Revision).Select(row => row.Resource).ToListAsync()));
        Assert.Equal(0, await store.ReadAsync(db => db.Vms.CountAsync()));
    }

    [Fact]
    public async Task Execute_WhenACommandBreaksAConstraint_UndoesItAlone()
    {
        await using var store = await TestStore.StartAsync();
        await store.AddVmAsync();
        var (gate, blocker) = await BlockAsync(store);
        var bad = store.WriteAsync(async scope =>
        {
            await scope.Db.Database.ExecuteSqlRawAsync("INSERT INTO vms SELECT * FROM vms");
            return 0;
        });
        var good = store.WriteAsync(scope => Log(scope, "good"));
        gate.SetResult();
        await blocker;

        await Assert.ThrowsAnyAsync<DbException>(() => bad);
        Assert.True(await good > 0);
        Assert.Equal(1, await store.ReadAsync(db => db.Vms.CountAsync()));
    }

    [Fact]
    public async Task Execute_WhenACommandRefuses_KeepsNothingOfIt()
    {
        await using var store = await TestStore.StartAsync();
        var refused = await store.WriteAsync(async scope =>
        {
            scope.Change("test", "refused", "test");
            scope.Db.Vms.Add(NewVm("refused"));
            await scope.Db.SaveChangesAsync();
            return new Refusal();
        });

        Assert.True(refused.IsRefused);
        Assert.Equal(0, await store.ReadAsync(db => db.Vms.CountAsync()));
        Assert.Equal(0, await store.ReadAsync(db => db.Changes.CountAsync()));
        Assert.Equal(1, await store.WriteAsync(scope => Log(scope, "next")));
    }

    [Fact]
    public async Task Execute_CancelledWhileQueued_IsNeverRun()
    {
        await using var store = await TestStore.StartAsync();
        var (gate, blocker) = await BlockAsync(store);
        using var cancel = new CancellationTokenSource();
        var cancelled = store.Writer.ExecuteAsync(scope => Log(scope, "cancelled"), cancel.Token);
        await cancel.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => cancelled);
        gate.SetResult();
        await blocker;
        await store.WriteAsync(scope => Log(scope, "after"));
        Assert.Equal(0, await store.ReadAsync(db => db.Changes.CountAsync(row => row.Resource == "cancelled")));
    }

    [Fact]
    public async Task Execute_CancelledOnceTaken_IsAnsweredWithItsCommit()
    {
        await using var store = await TestStore.StartAsync();
        var gate = new TaskCompletionSource();
        var entered = new TaskCompletionSource();
        using var cancel = new CancellationTokenSource();
        var taken = store.Writer.ExecuteAsync(
            async scope =>
            {
                entered.SetResult();
                await gate.Task;
                return await Log(scope, "taken");
            },
            cancel.Token);
        await entered.Task;
        await cancel.CancelAsync();
        Assert.False(taken.IsCompleted);
        gate.SetResult();

        Assert.Equal(1, await taken);
    }

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Execute_WhenTheCommitFails_FailsTheWholeBatchAndStoresNothing()
    {
        var commits = new Commits();
        await using var store = await TestStore.StartAsync(configureWriter: writer => writer.AddInterceptors(commits));
        var (gate, blocker) = await BlockAsync(store);
        var batch = Enumerable.Range(0, 10).Select(number => store.WriteAsync(scope => Log(scope, $"batch/{number}"))).ToArray();
        commits.FailAfter = 1;
        gate.SetResult();
        await blocker;

        foreach (var command in batch)
        {
            await Assert.ThrowsAsync<StoreWriteException>(() => command);
        }

        commits.FailAfter = int.MaxValue;
        Assert.Equal(2, await store.WriteAsync(scope => Log(scope, "after")));
        Assert.Equal(2, await store.ReadAsync(db => db.Changes.CountAsync()));
    }

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Execute_WhenTheDiskFailsInACommand_FailsTheWholeBatch()
    {
        await using var store = await TestStore.StartAsync();
        var (gate, blocker) = await BlockAsync(store);
        var good = store.WriteAsync(scope => Log(scope, "good"));
        var bad = store.WriteAsync<int>(_ => throw new IOException("disk"));
        gate.SetResult();

        await Assert.ThrowsAsync<StoreWriteException>(() => good);
        await Assert.ThrowsAsync<StoreWriteException>(() => bad);
        await blocker;
        Assert.Equal(1, await store.ReadAsync(db => db.Changes.CountAsync()));
    }

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Execute_Answered_IsCommittedAndPublished()
    {
        var observer = new Observer();
        await using var store = await TestStore.StartAsync(services => services.AddSingleton<ICommitObserver>(observer));
        observer.Read = () => store.Contexts.OpenReader();
        for (var round = 0; round < 50; round++)
        {
            var revision = await store.WriteAsync(scope =>
            {
                scope.Touch("host-a", "vm-1");
                return Log(scope, "vms/vm-1");
            });

            // Another connection sees only what is committed.
            Assert.Equal(revision, await store.ReadAsync(db => db.Counter.Select(row => row.Revision).SingleAsync()));
            Assert.Equal(revision, observer.Revision);
            Assert.Equal(revision, observer.CommittedWhenTold);
        }
    }

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Execute_WhenWhatFollowsTheCommitFails_IsAnsweredAndPublishedAllTheSame()
    {
        var observer = new Observer();
        var logs = new System.Collections.Concurrent.ConcurrentQueue<LogLine>();
        await using var store = await TestStore.StartAsync(services => services
            .AddSingleton<ICommitObserver>(observer).AddSingleton<Microsoft.Extensions.Logging.ILoggerProvider>(new CapturingLogs(logs)));
        observer.Read = () => store.Contexts.OpenReader();
        var (gate, blocker) = await BlockAsync(store);
        long toldBefore = 0, ran = 0;
        var bad = store.WriteAsync(scope =>
        {
            scope.OnCommitted(() => throw new OverflowException());
            return Log(scope, "bad");
        });
        var good = store.WriteAsync(scope =>
        {
            scope.OnCommitted(() => (toldBefore, ran) = (observer.Revision, 1));
            return Log(scope, "good");
        });
        gate.SetResult();
        await blocker;

        Assert.Equal(await bad + 1, await good);
        Assert.Equal(await good, observer.Revision);
        Assert.Equal((await good, 1), (toldBefore, ran));
        Assert.Single(logs, line => line.EventId == 2425 && line.Level == Microsoft.Extensions.Logging.LogLevel.Error);
    }

    [Fact]
    [Trait("Invariant", "I2")]
    public async Task Connections_OfTheWriter_SyncFullyAndUseTheWriteAheadLog()
    {
        await using var store = await TestStore.StartAsync();
        await using var db = store.Contexts.OpenWriter();
        await db.Database.OpenConnectionAsync(TestContext.Current.CancellationToken);

        Assert.Equal(2L, await PragmaAsync(db, "synchronous")); // 2 is FULL
        Assert.Equal("wal", await PragmaAsync(db, "journal_mode"));
        Assert.Equal(0L, await PragmaAsync(db, "query_only"));
        await using var reader = store.Contexts.OpenReader();
        await reader.Database.OpenConnectionAsync(TestContext.Current.CancellationToken);
        Assert.Equal(1L, await PragmaAsync(reader, "query_only"));
    }

    private static async Task<object?> PragmaAsync(Fleet.Data.FleetDbContext db, string name)
    {
        await using var command = db.Database.GetDbConnection().CreateCommand();
#pragma warning disable CA2100 // A constant of this test.
        command.CommandText = $"PRAGMA {name}";
#pragma warning restore CA2100
        return await command.ExecuteScalarAsync();
    }

    /// <summary>Holds the writer inside a batch, so that what comes next queues up.</summary>
    private static async Task<(TaskCompletionSource Gate, Task Blocker)> BlockAsync(TestStore store)
    {
        var gate = new TaskCompletionSource();
        var entered = new TaskCompletionSource();
        var blocker = store.WriteAsync(async scope =>
        {
            entered.SetResult();
            await gate.Task;
            return await Log(scope, "blocker");
        });
        await entered.Task;
        return (gate, blocker);
    }

    private static VmRow NewVm(string id) => new() { Id = id, Memory = "[]", Attach = "{}" };

    private sealed class Refusal : IRefusal
    {
        public bool IsRefused => true;
    }

    private sealed class Commits : DbTransactionInterceptor
    {
        public int Count { get; private set; }

        public int FailAfter { get; set; } = int.MaxValue;

        public override ValueTask<InterceptionResult> TransactionCommittingAsync(
            DbTransaction transaction, TransactionEventData eventData, InterceptionResult result, CancellationToken cancellationToken = default)
        {
            if (FailAfter-- <= 0)
            {
                throw new IOException("The disk is full.");
            }

            Count++;
            return base.TransactionCommittingAsync(transaction, eventData, result, cancellationToken);
        }
    }

    private sealed class Observer : ICommitObserver
    {
        public Func<Fleet.Data.FleetDbContext>? Read { get; set; }

        public long Revision { get; private set; }

        public long CommittedWhenTold { get; private set; }

        public void Committed(long revision, IReadOnlyCollection<Touched> touched)
        {
            using var db = Read!();
            CommittedWhenTold = db.Counter.Select(row => row.Revision).Single();
            Revision = revision;
        }
    }
}
