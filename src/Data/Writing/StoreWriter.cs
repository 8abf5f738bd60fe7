using System.Threading.Channels;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Fleet.Data.Writing;

/// <summary>
/// The one writer. Commands queue up and are committed many at a time (group commit): one fsync serves a whole batch, and
/// each caller is answered after the commit that holds its change.
/// </summary>
public sealed class StoreWriter(WriteBatch batch, ILogger<StoreWriter> logger) : BackgroundService
{
    public const int MaximumBatch = 256;

    private readonly Channel<WriteCommand> _queue = Channel.CreateBounded<WriteCommand>(
        new BoundedChannelOptions(4096) { SingleReader = true });

    /// <summary>Runs a command in the next batch.</summary>
    /// <param name="apply">
    /// Reads and writes through the scope's context only. Refusals are values (<see cref="IRefusal"/>): nothing they did is
    /// kept. An exception undoes this command alone.
    /// </param>
    /// <param name="cancellationToken">Drops the command only as long as no batch has taken it.</param>
    /// <exception cref="StoreWriteException">The batch could not be committed; nothing of it is stored.</exception>
    public async Task<T> ExecuteAsync<T>(Func<WriteScope, Task<T>> apply, CancellationToken cancellationToken)
    {
        var command = new WriteCommand<T>(apply);
        WriterMetrics.Queue.Add(1);
        try
        {
            await _queue.Writer.WriteAsync(command, cancellationToken);
            await using var registration = cancellationToken.UnsafeRegister(static (state, token) => ((WriteCommand<T>)state!).Cancel(token), command);
            return await command.Completion;
        }
        catch (ChannelClosedException exception)
        {
            throw new StoreWriteException("The writer has stopped.", exception);
        }
        finally
        {
            WriterMetrics.Queue.Add(-1);
        }
    }

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        _queue.Writer.TryComplete();
        await base.StopAsync(cancellationToken);
    }

    /// <summary>Ends with the queue, not with the token: what was accepted is written or refused, never forgotten.</summary>
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        var taken = new List<WriteCommand>(MaximumBatch);
        while (await _queue.Reader.WaitToReadAsync(CancellationToken.None))
        {
            taken.Clear();
            while (taken.Count < MaximumBatch && _queue.Reader.TryRead(out var command))
            {
                if (command.TryTake())
                {
                    taken.Add(command);
                }
            }

            if (taken.Count == 0)
            {
                continue;
            }

            try
            {
                await batch.RunAsync(taken);
            }
            catch (Exception exception)
            {
                WriterMetrics.Failed.Add(1);
                StoreLog.BatchFailed(logger, taken.Count, exception);
                var failure = new StoreWriteException("The change could not be stored.", exception);
                foreach (var command in taken)
                {
                    command.Fail(failure);
                }
            }
        }
    }
}
