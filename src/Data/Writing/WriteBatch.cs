using System.Data.Common;
using Fleet.Data.Placement;
using Fleet.Data.Storage;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Storage;
using Microsoft.Extensions.Logging;

namespace Fleet.Data.Writing;

/// <summary>One transaction over many commands, each behind its own savepoint.</summary>
public sealed class WriteBatch(StoreContexts contexts, IEnumerable<ICommitObserver> observers, TimeProvider time, ILogger<WriteBatch> logger)
{
    private const string Savepoint = "command";

    /// <exception cref="Exception">Begin, commit or the store itself failed: no command of the batch is stored.</exception>
    internal async Task RunAsync(IReadOnlyList<WriteCommand> commands)
    {
        var started = time.GetTimestamp();
        using var activity = FleetMeter.Activities.StartActivity("commit");
        await using var db = contexts.OpenWriter();
        db.Database.AutoSavepointsEnabled = false;

        // SQLite: BEGIN IMMEDIATE. The counter row is taken first, before anything is read, so that the same holds elsewhere.
        await using var transaction = await db.Database.BeginTransactionAsync();
        await db.Counter.ExecuteUpdateAsync(set => set.SetProperty(row => row.Revision, row => row.Revision));
        var first = await db.Counter.AsNoTracking().Select(row => row.Revision).SingleAsync();

        var revision = first;
        var touched = new HashSet<Touched>();
        var vms = new HashSet<string>(StringComparer.Ordinal);
        var failed = new List<(WriteCommand Command, Exception Exception)>();
        var applied = new List<WriteCommand>(commands.Count);
        var afterCommit = new List<Action>();
        var changes = new List<LoggedChange>();
        var now = time.GetUtcNow().ToUnixTimeMilliseconds();
        foreach (var command in commands)
        {
            var scope = new WriteScope(db, revision, now);
            var exception = await ApplyAsync(command, scope, transaction);
            if (exception is not null)
            {
                failed.Add((command, exception));
                continue;
            }

            applied.Add(command);
            if (scope.Accepted)
            {
                revision = scope.Revision;
                touched.UnionWith(scope.Touched);
                vms.UnionWith(scope.TouchedVms);
                afterCommit.AddRange(scope.AfterCommit);
                changes.AddRange(scope.Changes);
            }
        }

        if (revision != first)
        {
            await db.Counter.ExecuteUpdateAsync(set => set.SetProperty(row => row.Revision, revision));
        }

        await Concerned.AddHostsAsync(db, revision, [.. vms], touched);
        await transaction.CommitAsync();
        Publish(revision, touched);
        WriterMetrics.Batch.Record(commands.Count);
        WriterMetrics.Commit.Record(time.GetElapsedTime(started).TotalSeconds);
        activity?.SetTag("fleet.revision", revision).SetTag("fleet.commands", commands.Count);
        afterCommit.ForEach(Run);
        applied.ForEach(command => command.Complete());
        failed.ForEach(item => item.Command.Fail(item.Exception));
        Log(revision, commands.Count, changes);
    }

    /// <summary>Only once the callers are answered: nobody waits for the log.</summary>
    private void Log(long revision, int commands, List<LoggedChange> changes)
    {
        StoreLog.Committed(logger, revision, commands);
        if (logger.IsEnabled(LogLevel.Information))
        {
            changes.ForEach(change => StoreLog.Changed(logger, change.Revision, change.Kind, change.Resource, change.Actor));
        }
    }

    private static async Task<Exception?> ApplyAsync(WriteCommand command, WriteScope scope, IDbContextTransaction transaction)
    {
        await transaction.CreateSavepointAsync(Savepoint);
        try
        {
            scope.Accepted = await command.ApplyAsync(scope);
            if (scope.Accepted)
            {
                await scope.Db.SaveChangesAsync();
            }
            else
            {
                await transaction.RollbackToSavepointAsync(Savepoint);
            }

            await transaction.ReleaseSavepointAsync(Savepoint);
            return null;
        }
        catch (Exception exception) when (!IsStoreFault(exception))
        {
            // Where the store has ended the whole transaction by itself this throws, and the batch fails as it must.
            scope.Accepted = false;
            await transaction.RollbackToSavepointAsync(Savepoint);
            await transaction.ReleaseSavepointAsync(Savepoint);
            return exception;
        }
        finally
        {
            scope.Db.ChangeTracker.Clear();
        }
    }

    /// <summary>The disk's or the file's fault, not the command's: SQLite may already have rolled the transaction back.</summary>
    private static bool IsStoreFault(Exception exception)
    {
        const int constraint = 19;
        for (var inner = exception; inner is not null; inner = inner.InnerException)
        {
            if (inner is IOException || (inner is DbException && inner is not SqliteException { SqliteErrorCode: constraint }))
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>What the action speaks of is stored: its failure must not tell the callers otherwise.</summary>
    private void Run(Action action)
    {
        try
        {
            action();
        }
        catch (Exception exception)
        {
            StoreLog.AfterCommitFailed(logger, exception);
        }
    }

    private void Publish(long revision, HashSet<Touched> touched)
    {
        foreach (var observer in observers)
        {
            try
            {
                observer.Committed(revision, touched);
            }
            catch (Exception exception)
            {
                // Committed is committed: the callers are answered whatever an observer does.
                StoreLog.ObserverFailed(logger, exception);
            }
        }
    }
}
