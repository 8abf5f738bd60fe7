using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Restore;
using Fleet.HostAgent.Spool;
using Fleet.HostAgent.State;
using Fleet.Linux.Processes;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Gate;

/// <summary>
/// Carries out the gate's rules for one VM. Order is everything here: the sweep is in the spool before the barrier closes on disk,
/// the barrier is closed on disk before the seal is spooled; the right is on disk before the guest runs. Call with the entry's gate held.
/// </summary>
public sealed partial class GateKeeper(
    GateStore store, StorePromise promise, ReportSpool spool, GateOutbox outbox, AttachmentJournal journal, DeviceAccess devices,
    IOptions<AgentOptions> options, TimeProvider time, ILogger<GateKeeper> logger)
{
    private const int ReportsPerLine = 1000;
    // By epoch: one that came in a quarantine did nothing, and whoever still wants the reset afterwards asks under a new epoch.
    private readonly HashSet<(string Vm, long PlacementEpoch)> _attested = [];

    /// <param name="verified">The kernel confirmed every page just now.</param>
    /// <param name="failure">Why pages could not be armed; null when none failed.</param>
    public void Keep(VmEntry entry, DesiredVm desired, bool verified, string? failure)
    {
        var record = store.Get(entry.Vm);
        var view = View(entry, desired, record, verified) with { Failure = failure };
        entry.Attachment?.Channel?.Skip(FrameSet.Of(desired.Pages));
        var steps = GateRules.Decide(view);
        if (steps.Any(step => step is GateStep.TakeRight or GateStep.Acknowledge) && devices.LookNow(entry.Attachment!) is { } found)
        {
            // It came after the last look. Both steps are rare: once for each move, and every second for as long as a switchover lasts.
            view = view with { Vmm = view.Vmm! with { DeviceDma = found } };
            steps = GateRules.Decide(view);
        }

        if (view.Vmm is not null || desired.Migration is null)
        {
            // Without a VMM what a refused handoff said stands.
            outbox.Set(entry.Vm, steps.OfType<GateStep.Obstacle>().Select(step => new GateObstacle(entry.Vm, step.Migration, step.Code, step.Detail)).FirstOrDefault());
        }

        foreach (var step in steps)
        {
            if (!Carry(entry, desired, view, step))
            {
                // The spool is full: nothing that must come after a report may happen before there is room.
                return;
            }
        }
    }

    /// <summary>
    /// A memory error of a target before its right: like a hole of the stream, known to the control plane or not, and part of every
    /// acknowledgement from now on. On disk before the VMM is told that its event is; one that waits to be sent is void.
    /// </summary>
    public void TakeIncomingPoison(Attach.Attachment attachment, FrameSet frames)
    {
        attachment.Undelivered = attachment.Undelivered.Union(frames);
        journal.Save(attachment);
        outbox.Drop(attachment.Vm);
    }

    /// <summary>
    /// A memory error of a guest that has the right: on disk before its report can leave, until the desired set has it, so that it can be
    /// stated where the control plane took the report and then lost it (restore from backup).
    /// </summary>
    public void TakeReportedPoison(Attach.Attachment attachment, FrameSet frames)
    {
        attachment.Reported = attachment.Reported.Union(frames);
        journal.Save(attachment);
    }

    /// <summary>What it could or could not do is nothing to the one that comes after it.</summary>
    public void VmmEnded(string vm)
    {
        outbox.Drop(vm);
        outbox.Set(vm, null);
    }

    /// <summary>A VMM that has used its permit is not incoming any more. Its holes stay trapped until the control plane's set has them.</summary>
    public void Settle(Attach.Attachment attachment)
    {
        if (attachment.IncomingFor is not null && store.Get(attachment.Vm).Vmm == attachment.Vmm)
        {
            attachment.IncomingFor = null;
            journal.Save(attachment);
        }
    }

    /// <summary>What keeps a VMM of this host from its part in a migration, as the reasons of the gate are called.</summary>
    public void TellObstacle(DesiredVm? desired, string code, string detail)
    {
        var reason = code switch
        {
            "layout-mismatch" => "layout",
            "not-mapped" => "mappings",
            "busy-userfaultfd" => "busy-userfaultfd",
            "unsupported-backing" or "userfaultfd-features" => "capability",
            _ => null,
        };
        if (desired?.Migration is { } migration && migration.TargetHost == options.Value.Host && reason is not null)
        {
            outbox.Set(desired.Vm, new GateObstacle(desired.Vm, migration.Id, reason, detail));
        }
    }

    /// <summary>Where a poison report of this VMM arises (GATE, "Reports of new poison"); null for a VMM without a barrier.</summary>
    public string? OriginOf(Attach.Attachment attachment)
    {
        var record = store.Get(attachment.Vm);
        return !attachment.HasBarrier ? null
            : record.Vmm != attachment.Vmm ? PoisonOrigins.Incoming
            : record.IsOpen ? PoisonOrigins.Held
            : PoisonOrigins.Sealed;
    }

    private GateView View(VmEntry entry, DesiredVm desired, GateRecord record, bool verified)
    {
        var vmm = entry.Attachment is { } attachment
            ? new VmmView(
                attachment.Vmm, attachment.MemoryInstance, attachment.IncomingFor, attachment.HasBarrier,
                attachment.Channel?.State?.State, attachment.Channel?.IsLatched == true, attachment.Channel?.State?.StreamTarget,
                attachment.MayHaveRun, spool.LastEvent(attachment.Vmm) >= (attachment.Channel?.State?.LastEvent ?? 0), devices.Look(attachment))
            : null;
        return new GateView(
            options.Value.Host, desired, record, vmm, verified && vmm is not null,
            record.Vmm?.IsAlive() == true, Lives(desired.Migration?.Permit?.VmmInstance), promise.IsOlder(desired));
    }

    private bool Carry(VmEntry entry, DesiredVm desired, GateView view, GateStep step)
    {
        switch (step)
        {
            case GateStep.Fence:
                entry.Attachment?.Channel?.Hold();
                store.Save(view.Record with { Closed = view.Record.Right });
                LogFenced(entry.Vm, view.Record.Right, desired.PlacementEpoch);
                return true;
            case GateStep.Hold:
                entry.Attachment?.Channel?.Hold();
                return true;
            case GateStep.Run:
                entry.Attachment?.Channel?.Run();
                return true;
            case GateStep.TakeRight take:
                TakeRight(entry, desired, view, take);
                return true;
            case GateStep.Seal seal:
                return Seal(entry, desired, view, seal);
            case GateStep.Renounce renounce:
                store.Save(view.Record with { Closed = renounce.Epoch, Renounced = renounce.Migration });
                LogRenounced(entry.Vm, renounce.Epoch);
                return SpoolRecord(entry.Vm, desired);
            case GateStep.SpoolAgain:
                return SpoolRecord(entry.Vm, desired);
            case GateStep.Acknowledge acknowledge:
                outbox.Put(new GateAck(
                    entry.Vm, acknowledge.Migration, view.Vmm!.Instance, desired.MemoryInstance, desired.Generation,
                    PoisonDigest.Compute(entry.Vm, desired.MemoryInstance, desired.Pages), Sweep.Unservable(entry.Attachment!, desired)));
                return true;
            case GateStep.AttestGone:
                return AttestGone(entry.Vm, desired);
            case GateStep.Obstacle:
                // Told above, with the others.
                return true;
            default:
                throw new InvalidOperationException($"unknown step {step}");
        }
    }

    private void TakeRight(VmEntry entry, DesiredVm desired, GateView view, GateStep.TakeRight take)
    {
        var attachment = entry.Attachment!;
        store.Save(view.Record with
        {
            Right = take.Epoch,
            MemoryInstance = desired.MemoryInstance,
            Vmm = attachment.Vmm,
            Sealed = null,
            Lifted = take.Migration,
        });
        Settle(attachment);
        attachment.Channel?.Run();
        LogRight(entry.Vm, take.Epoch, take.Migration ?? "none");
        SpoolRecord(entry.Vm, desired);
    }

    private bool Seal(VmEntry entry, DesiredVm desired, GateView view, GateStep.Seal seal)
    {
        var swept = Sweep.Reports(desired, Sweep.Unservable(entry.Attachment!, desired), PoisonOrigins.Held, time.GetUtcNow()).ToList();
        if (!swept.Chunk(ReportsPerLine).All(chunk => spool.TryAppend(chunk)))
        {
            return false;
        }

        store.Save(view.Record with { Closed = seal.Epoch, Sealed = new SealRecord(seal.Migration, seal.Epoch, seal.TargetVmmInstance, Spooled: false) });
        LogSealed(entry.Vm, seal.Migration, seal.Epoch, swept.Count);
        return SpoolRecord(entry.Vm, desired);
    }

    // What is on disk in the record and not yet in the spool. Twice in the spool is harmless: the control plane counts each once.
    private bool SpoolRecord(string vm, DesiredVm desired)
    {
        var record = store.Get(vm);
        var reports = new List<AgentReport>();
        if (record.Sealed is { Spooled: false } seal)
        {
            reports.Add(Report(desired, AgentReport.Seal, seal.Migration, seal.Epoch) with { TargetVmmInstance = seal.TargetVmmInstance });
        }

        if (record.Lifted is { } lifted)
        {
            reports.Add(Report(desired, AgentReport.Lifted, lifted, record.Right));
        }

        if (record.Renounced is { } renounced)
        {
            reports.Add(Report(desired, AgentReport.Renounced, renounced, record.Closed));
        }

        if (reports.Count > 0)
        {
            if (!spool.TryAppend(reports))
            {
                return false;
            }

            store.Save(record with { Sealed = record.Sealed is { } spooled ? spooled with { Spooled = true } : null, Lifted = null, Renounced = null });
        }

        return true;
    }

    private bool AttestGone(string vm, DesiredVm desired)
    {
        if (!_attested.Contains((vm, desired.PlacementEpoch)))
        {
            if (!spool.TryAppend([Report(desired, AgentReport.VmmGone, null, desired.PlacementEpoch)]))
            {
                return false;
            }

            _attested.Add((vm, desired.PlacementEpoch));
        }

        return true;
    }

    private AgentReport Report(DesiredVm desired, string kind, string? migration, long epoch)
    {
        var now = time.GetUtcNow();
        return new AgentReport(
            0, kind, desired.Vm, desired.MemoryInstance, 0, null, null, null, epoch, now, now, 1, null, null, null, null, null, migration);
    }

    private static bool Lives(string? instance)
    {
        if (instance is null)
        {
            return false;
        }

        var parts = instance.Split(':');
        return parts.Length == 3
            && int.TryParse(parts[1], System.Globalization.CultureInfo.InvariantCulture, out var pid)
            && long.TryParse(parts[2], System.Globalization.CultureInfo.InvariantCulture, out var start)
            && new ProcessIdentity(parts[0], pid, start).IsAlive();
    }

    [LoggerMessage(1701, LogLevel.Warning, "VM {Vm}: ownership moved (epoch {Epoch}) while this host held epoch {Right}; the guest is stopped and the right given up")]
    private partial void LogFenced(string vm, long right, long epoch);

    [LoggerMessage(1702, LogLevel.Information, "VM {Vm}: this host gave the permit of epoch {Epoch} up")]
    private partial void LogRenounced(string vm, long epoch);

    [LoggerMessage(1703, LogLevel.Information, "VM {Vm}: this host holds the right of epoch {Epoch}; permit of migration: {Migration}")]
    private partial void LogRight(string vm, long epoch, string migration);

    [LoggerMessage(1704, LogLevel.Information, "VM {Vm}: sealed for migration {Migration} at epoch {Epoch} with {Pages} pages swept")]
    private partial void LogSealed(string vm, string migration, long epoch, int pages);
}
