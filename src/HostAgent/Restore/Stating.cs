using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Gate;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Spool;
using Fleet.HostAgent.State;
using Fleet.Linux;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Restore;

/// <summary>
/// Carries out a new store epoch on this host. Order is everything: the promise is on disk, then every barrier that no live right holds
/// open is closed on disk, and only then is it stated what this host holds.
/// </summary>
public sealed partial class Stating(
    StorePromise promise, GateStore gates, GateOutbox outbox, VmTable table, AttachmentJournal journal, ReportSpool spool, ControlPlaneClient client, ILogger<Stating> logger)
{
    private const int MostVms = 10_000;

    public long HighestSeen =>
        StatementRules.HighestSeen(table.All.Select(entry => entry.Desired).OfType<DesiredVm>(), gates.All(), promise.Incarnation, promise.StoreEpoch);

    /// <summary>From here on every view of an older store epoch is refused.</summary>
    public async Task PromiseAsync(long storeEpoch, CancellationToken cancellationToken)
    {
        promise.Promise(storeEpoch);
        outbox.DropAll();
        foreach (var vm in gates.All().Select(record => record.Vm).Union(table.All.Select(entry => entry.Vm)).ToList())
        {
            await UnderGateAsync(
                vm,
                _ =>
                {
                    var record = gates.Get(vm);
                    var closed = StatementRules.Close(record, record.Vmm?.IsAlive() == true, storeEpoch);
                    if (closed != record)
                    {
                        gates.Save(closed);
                    }
                },
                cancellationToken);
        }

        LogPromised(storeEpoch);
    }

    public async Task StateAsync(ClaimResult claim, CancellationToken cancellationToken)
    {
        var statements = await CollectAsync(cancellationToken);
        await client.StateAsync(new StatementRequest(claim.Incarnation, claim.StoreEpoch, statements, spool.Position), cancellationToken);
        LogStated(statements.Count, claim.StoreEpoch);
    }

    /// <summary>What this host holds now, of every VM that it knows.</summary>
    public async Task<IReadOnlyList<VmStatement>> CollectAsync(CancellationToken cancellationToken)
    {
        var statements = new List<VmStatement>();
        var journalled = journal.Load().ToDictionary(record => record.Vm, StringComparer.Ordinal);
        var known = table.All.Where(entry => entry.Desired is not null || entry.Attachment is not null).Select(entry => entry.Vm).Union(journalled.Keys).ToList();

        // Also what was here once: a VM that is parked is nowhere but in the record of its seal.
        var once = gates.All().Where(record => record.Right > 0).OrderByDescending(record => record.Right).Select(record => record.Vm).Except(known).ToList();
        foreach (var vm in known.Concat(once).Take(MostVms))
        {
            await UnderGateAsync(vm, entry => statements.Add(Of(vm, entry, journalled.GetValueOrDefault(vm))), cancellationToken);
        }

        return statements;
    }

    private VmStatement Of(string vm, VmEntry? entry, AttachmentRecord? journalled)
    {
        var (desired, attachment, record) = (entry?.Desired, entry?.Attachment, gates.Get(vm));
        var known = desired?.Pages ?? [];
        var others = (attachment is null ? FrameSetOf(journalled) : Held(attachment)).Except(FrameSet.Of(known));
        return StatementRules.State(
            record,
            record.Vmm?.IsAlive() == true,
            desired,
            attachment?.MemoryInstance ?? journalled?.MemoryInstance ?? 0,
            attachment is { HasBarrier: false } && !attachment.Process.HasExited(),
            desired?.Memory ?? (attachment is null ? null : LayoutOf(attachment)),
            Sweep.Pages(known, others));
    }

    /// <summary>Everything that the VMM was to trap, reported or cannot serve, known to the control plane or not.</summary>
    private static FrameSet Held(Attachment attachment)
    {
        var noted = attachment.Trapped.Union(attachment.Undelivered).Union(attachment.Reported);
        try
        {
            return noted.Union(MarkerVerifier.FindMarked(attachment));
        }
        catch (LinuxException)
        {
            // It has ended in this moment, and its memory with it.
            return noted;
        }
    }

    private static FrameSet FrameSetOf(AttachmentRecord? record) => record is null
        ? FrameSet.Empty
        : FrameSet.Of(record.Trapped.Concat(record.Undelivered ?? []).Concat(record.Reported ?? []));

    private static List<MemoryRegion> LayoutOf(Attachment attachment) =>
        [.. attachment.Layout.Regions.Select(region => new MemoryRegion(HexAddress.Format(region.GuestPhysicalAddress), region.Bytes, region.PageBytes))];

    private async Task UnderGateAsync(string vm, Action<VmEntry?> act, CancellationToken cancellationToken)
    {
        if (table.Find(vm) is not { } entry)
        {
            act(null);
            return;
        }

        await entry.Gate.WaitAsync(cancellationToken);
        try
        {
            act(entry);
        }
        finally
        {
            entry.Gate.Release();
        }
    }

    [LoggerMessage(2210, LogLevel.Warning, "The control plane's database was put back from a backup: everything before store epoch {StoreEpoch} is refused from now on. Enforcement goes on, and guests with a right run on")]
    private partial void LogPromised(long storeEpoch);

    [LoggerMessage(2211, LogLevel.Information, "Stated what this host holds of {Vms} VMs, in store epoch {StoreEpoch}")]
    private partial void LogStated(int vms, long storeEpoch);
}
