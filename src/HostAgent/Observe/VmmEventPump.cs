using System.Threading.Channels;
using Fleet.Contracts.Handoff;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Spool;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Observe;

/// <summary>
/// Takes one VMM's events to the spool, and acknowledges them when they are durable. A guest that hammers a poisoned page
/// costs at most a few appends a second: what arrives in between becomes one report with a count, and a VMM that is faster
/// still waits for its acknowledgements. Nothing is dropped (I8).
/// </summary>
public sealed partial class VmmEventPump(VmEntry entry, Attachment attachment, AgentLineWriter writer, ReportSpool spool, PoisonIntake intake, AccessObserver observer,
    TimeProvider time, ILogger logger)
{
    private static readonly TimeSpan Window = TimeSpan.FromMilliseconds(250);

    private readonly Channel<VmmEvent> _events = Channel.CreateBounded<VmmEvent>(new BoundedChannelOptions(256) { SingleReader = true });

    /// <summary>Waits while the pump is behind: that is how a VMM is slowed down.</summary>
    public ValueTask PostAsync(VmmEvent vmmEvent, CancellationToken cancellationToken) =>
        _events.Writer.WriteAsync(vmmEvent, cancellationToken);

    /// <summary>No more events come; <see cref="RunAsync"/> ends when those that are here are durable.</summary>
    public void Complete() => _events.Writer.TryComplete();

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
            await StoreAsync(batch, cancellationToken);
            await AcknowledgeAsync(last, cancellationToken);
            await Task.Delay(Window, time, cancellationToken); // allowed: the coalescing window, not a wait for something
        }
    }

    private async Task StoreAsync(List<VmmEvent> batch, CancellationToken cancellationToken)
    {
        // A VMM sends again what it has no acknowledgement for; what is durable already changes nothing (I5).
        var durable = spool.LastEvent(attachment.Vmm);
        batch.RemoveAll(vmmEvent => vmmEvent.Sequence <= durable);
        if (batch.Count == 0)
        {
            return;
        }

        // What the kernel showed of these accesses was recorded before the VMM could speak of them. Once: what is explained is used up.
        observer.Drain();
        var hits = VmmEventReports.Hits(batch).SelectMany(said => observer.Merge.Explain(attachment, said)).ToList();
        var watermark = new VmmWatermark(attachment.Vmm, batch[^1].Sequence);
        var complained = false;
        while (true)
        {
            var changed = spool.WhenChangedAsync();
            try
            {
                if (await TryStoreAsync(batch, hits, watermark, cancellationToken))
                {
                    return;
                }

                Complain(ref complained, null);
                await changed.WaitAsync(cancellationToken);
            }
            catch (IOException exception)
            {
                // Disk full or read-only: the VMM keeps its events, and enforcement goes on.
                Complain(ref complained, exception);
                await Task.Delay(TimeSpan.FromSeconds(5), time, cancellationToken); // allowed: pace of retries on a failing disk
            }
        }
    }

    // Under the VM's gate: where poison arose must not change between its judgement and its report.
    private async Task<bool> TryStoreAsync(List<VmmEvent> batch, List<ObservedAccess> hits, VmmWatermark watermark, CancellationToken cancellationToken)
    {
        await entry.Gate.WaitAsync(cancellationToken);
        try
        {
            return intake.TryStore(
                entry, attachment,
                origin => VmmEventReports.Build(batch, hits, entry.Vm, attachment.MemoryInstance, entry.PlacementEpoch ?? 0, origin),
                PoisonIntake.Behind(attachment, VmmEventReports.PoisonedPages(batch)), watermark);
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

    private void Complain(ref bool complained, Exception? exception)
    {
        if (!complained)
        {
            LogSpoolStuck(exception, entry.Vm);
            complained = true;
        }
    }

    [LoggerMessage(1501, LogLevel.Error, "The spool is full or cannot be written; the VMM of VM {Vm} keeps its events until there is room")]
    private partial void LogSpoolStuck(Exception? exception, string vm);
}
