using System.Threading.Channels;
using Fleet.Contracts.Handoff;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Spool;

namespace Fleet.HostAgent.Observe;

/// <summary>
/// Takes one VMM's events to the spool, and acknowledges them when they are durable. A guest that hammers a poisoned page
/// costs at most a few appends a second: what arrives in between becomes one report with a count, and a VMM that is faster
/// still waits for its acknowledgements. Nothing is dropped (I8).
/// </summary>
public sealed class VmmEventPump(VmEntry entry, Attachment attachment, AgentLineWriter writer, ReportSpool spool, HeldBack held, PoisonIntake intake,
    AccessObserver observer, TimeProvider time)
{
    private static readonly TimeSpan Window = TimeSpan.FromMilliseconds(250);

    private static readonly TimeSpan DiskPause = TimeSpan.FromSeconds(5);

    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Channel<VmmEvent> _events = Channel.CreateBounded<VmmEvent>(new BoundedChannelOptions(256) { SingleReader = true });

    /// <summary>Waits while the pump is behind: that is how a VMM is slowed down.</summary>
    public ValueTask PostAsync(VmmEvent vmmEvent, CancellationToken cancellationToken) =>
        _events.Writer.WriteAsync(vmmEvent, cancellationToken);

    /// <summary>No more events come; <see cref="RunAsync"/> ends when those that are here are durable, or the spool does not take them.</summary>
    public void Complete()
    {
        _events.Writer.TryComplete();
        _ended.TrySetResult();
    }

    public async Task RunAsync(CancellationToken cancellationToken)
    {
        try
        {
            await PumpAsync(cancellationToken);
        }
        finally
        {
            // Whoever posts must not wait for a pump that is gone.
            Complete();
        }
    }

    private async Task PumpAsync(CancellationToken cancellationToken)
    {
        while (await _events.Reader.WaitToReadAsync(cancellationToken))
        {
            var batch = new List<VmmEvent>();
            while (batch.Count < 1000 && _events.Reader.TryRead(out var vmmEvent))
            {
                batch.Add(vmmEvent);
            }

            var last = batch[^1].Sequence;
            if (!await StoreAsync(batch, cancellationToken))
            {
                return;
            }

            await AcknowledgeAsync(last, cancellationToken);
            await Task.Delay(Window, time, cancellationToken); // allowed: the coalescing window, not a wait for something
        }
    }

    /// <returns>False when the VMM went away while the spool took nothing: it has no acknowledgement and sends its events again.</returns>
    private async Task<bool> StoreAsync(List<VmmEvent> batch, CancellationToken cancellationToken)
    {
        // A VMM sends again what it has no acknowledgement for; what is durable already changes nothing (I5).
        var durable = spool.LastEvent(attachment.Vmm);
        batch.RemoveAll(vmmEvent => vmmEvent.Sequence <= durable);
        if (batch.Count == 0)
        {
            return true;
        }

        List<ObservedAccess>? hits = null;
        var isHeld = false;
        try
        {
            while (true)
            {
                var changed = spool.WhenChangedAsync();
                (hits, var problem) = await TryStoreAsync(batch, hits, cancellationToken);
                if (problem is null)
                {
                    return true;
                }

                if (!isHeld)
                {
                    held.Begin(entry.Vm, problem.Reason);
                    isHeld = true;
                }

                if (!await MayTryAgainAsync(problem, changed, cancellationToken))
                {
                    return false;
                }
            }
        }
        finally
        {
            if (isHeld)
            {
                held.End();
            }
        }
    }

    // A pump that waited for room after its connection would take the place of the VMM's next one.
    private async Task<bool> MayTryAgainAsync(Refusal problem, Task changed, CancellationToken cancellationToken)
    {
        var again = problem.IsFull ? changed : Task.Delay(DiskPause, time, cancellationToken); // allowed: pace of retries on a failing disk
        var first = await Task.WhenAny(again.WaitAsync(cancellationToken), _ended.Task.WaitAsync(cancellationToken));
        await first;
        return !_ended.Task.IsCompleted;
    }

    // Under the VM's gate: where poison arose must not change between its judgement and its report.
    /// <param name="hits">Of the batch; null when they are not known yet.</param>
    /// <returns>The hits, and null when all is durable.</returns>
    private async Task<(List<ObservedAccess>? Hits, Refusal? Problem)> TryStoreAsync(
        List<VmmEvent> batch, List<ObservedAccess>? hits, CancellationToken cancellationToken)
    {
        await entry.Gate.WaitAsync(cancellationToken);
        try
        {
            // Again: another connection of the same VMM may have stored them while this one waited.
            if (batch.RemoveAll(vmmEvent => vmmEvent.Sequence <= attachment.LastEvent) > 0)
            {
                hits = null;
            }

            if (batch.Count == 0)
            {
                return (null, null);
            }

            if (hits is null)
            {
                // What the kernel showed of these accesses was recorded before the VMM could speak of them. Once: what is explained is used up.
                observer.Drain();
                hits = [.. VmmEventReports.Hits(batch).SelectMany(said => observer.Merge.Explain(attachment, said))];
            }

            var stored = intake.TryStore(
                entry, attachment,
                origin => VmmEventReports.Build(batch, hits, entry.Vm, attachment.MemoryInstance, entry.PlacementEpoch ?? 0, origin),
                PoisonIntake.Behind(attachment, VmmEventReports.PoisonedPages(batch)), new VmmWatermark(attachment.Vmm, batch[^1].Sequence));
            attachment.LastEvent = stored ? batch[^1].Sequence : attachment.LastEvent;
            return (hits, stored ? null : new Refusal(true, null));
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or Linux.LinuxException)
        {
            return (hits, new Refusal(false, exception));
        }
        finally
        {
            entry.Gate.Release();
        }
    }

    private async Task AcknowledgeAsync(long last, CancellationToken cancellationToken)
    {
        try
        {
            await writer.SendAsync(new AgentLine(AgentLine.Acknowledged, Math.Max(last, spool.LastEvent(attachment.Vmm)), null, null), cancellationToken);
        }
        catch (System.Net.Sockets.SocketException)
        {
            // The VMM closed its end; it learns the watermark with its next handoff. What it sent before is stored all the same.
        }
    }

    /// <param name="IsFull">By its bound, not by its disk.</param>
    private sealed record Refusal(bool IsFull, Exception? Reason);
}
