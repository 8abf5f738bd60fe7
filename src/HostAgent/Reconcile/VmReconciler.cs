using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Attach;
using Fleet.Contracts.Handoff;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Gate;
using Fleet.HostAgent.Observe;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.Restore;
using Fleet.HostAgent.State;
using Fleet.Linux;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Reconcile;

/// <summary>Brings one VM's VMM to its desired state, and states what the kernel confirmed.</summary>
public sealed partial class VmReconciler(
    AttachmentJournal journal, Attachments attachments, GateKeeper gate, StorePromise promise, DeviceAccess devices, AccessObserver observer,
    MapLimit maps, LossReports losses, IOptions<AgentOptions> options, TimeProvider time, ILogger<VmReconciler> logger)
{
    private readonly LogPace _failures = new(time);
    private readonly EnforcementPolicy _policy = options.Value.EnforcementPolicy;

    /// <summary>Looks at the kernel, plans, acts, looks again. Call with the entry's gate held.</summary>
    public void Reconcile(VmEntry entry)
    {
        if (entry.Attachment is { } ended && ended.Process.HasExited())
        {
            End(entry, ended);
        }

        // Wanted here or not: whoever waits for a page gets another try.
        entry.Attachment?.Unanswered.Wake(entry.Attachment.Userfaultfd);
        if (entry.Desired is not { } desired)
        {
            return;
        }

        var before = entry.Status;
        var status = entry.Attachment is { } attachment ? Enforce(entry, desired, attachment)
            : Reconciler.Unconfirmed(desired, EnforcementStates.Pending, NotAttached(entry, desired));
        var verified = status.State == EnforcementStates.Armed;
        if (verified)
        {
            // For the VMM's own accesses and its guest's, devices or not.
            entry.CompleteArmed();
        }

        gate.Keep(entry, desired, verified, status.State == EnforcementStates.Failed ? status.Reason : null);
        entry.Status = WithDevices(entry, desired, status);
        LogChange(before, entry.Status);
    }

    private static string NotAttached(VmEntry entry, DesiredVm desired) =>
        desired.Attach.Kind == AttachKinds.Firecracker ? "attach-unsupported" : entry.NotAttached ?? "not-attached";

    // Markers stop nobody who comes past the page tables: what is claimed of the set must hold against devices too (DESIGN 8).
    private VmStatus WithDevices(VmEntry entry, DesiredVm desired, VmStatus status) =>
        (status.State == EnforcementStates.Armed || status.Reason == GateStatus.Staged) && entry.Attachment is { } attachment && devices.Look(attachment) is not null
            ? Reconciler.Unconfirmed(desired, EnforcementStates.Failed, GateStatus.DeviceDma)
            : status;

    private VmStatus Enforce(VmEntry entry, DesiredVm desired, Attachment attachment)
    {
        if (attachment.MemoryInstance != desired.MemoryInstance)
        {
            // A reset or rebuild: the old RAM is still mapped in this process, and its arms must not change.
            return Reconciler.Unconfirmed(desired, EnforcementStates.Pending, "vmm-of-another-memory-instance");
        }

        gate.Settle(attachment);
        if (attachment.IncomingFor is not null && attachment.Channel?.State?.State != VmmStates.Loaded)
        {
            // Armed after the load only: a stream that still writes could undo it.
            return Reconciler.Unconfirmed(desired, EnforcementStates.Pending, GateStatus.Staged);
        }

        // After the look at the state: its holes came with it.
        HandoffIncoming.TakeHoles(attachment);
        try
        {
            return Reconciler.Status(desired, Carry(entry, desired, attachment), attachment.Layout.Regions.Any(region => region.IsHuge) ? attachment.Layout.ShiftAt : null);
        }
        catch (Exception exception) when (exception is LinuxException { Errno: Errno.ESRCH } || (exception is LinuxException or IOException && attachment.Process.HasExited()))
        {
            End(entry, attachment);
            return Reconciler.Unconfirmed(desired, EnforcementStates.Pending, "not-attached");
        }
        catch (Exception exception) when (exception is LinuxException or IOException or UnauthorizedAccessException)
        {
            if (_failures.MayTell(entry.Vm) is { } silent)
            {
                LogFailed(exception, entry.Vm, silent);
            }

            return Reconciler.Unconfirmed(desired, EnforcementStates.Failed, exception is LinuxException linux ? Enforcer.Describe(linux) : "state-folder-failed");
        }
    }

    private void End(VmEntry entry, Attachment attachment)
    {
        LogVmmEnded(entry.Vm, attachment.Vmm.Pid);
        losses.Tell(entry, attachment, all: true);
        attachments.Detach(entry);
        gate.VmmEnded(entry.Vm);
    }

    private List<ArmFailure> Carry(VmEntry entry, DesiredVm desired, Attachment attachment)
    {
        var known = FrameSet.Of(desired.Pages);
        attachment.Reported = attachment.Reported.Except(known);
        attachment.Spooled = attachment.Spooled.Except(known);
        if (attachment.IncomingFor is null)
        {
            // What the grant united with the set is the set's from now on, and may be cleared there.
            attachment.Undelivered = attachment.Undelivered.Except(known);
        }

        // In huge pages more is armed than is desired: the rest of the page is lost with the frame.
        var wanted = attachment.Layout.Widen(known.Union(attachment.Undelivered));
        if (_policy == EnforcementPolicy.Trap)
        {
            RegisterWhole(attachment, wanted.Except(attachment.Trapped));

            // Journalled before it is registered, and registered again before each look: a hole counts only where its access is an event.
            Journal(attachment, attachment.Trapped.Union(wanted));
            Enforcer.Register(attachment, wanted);
        }

        var plan = Reconciler.Plan(wanted, attachment.Trapped, entry.Confirmed, MarkerVerifier.FindUnmarked(attachment, wanted, _policy));
        losses.Add(entry, attachment, plan.Lost);
        if (_policy == EnforcementPolicy.Marker)
        {
            RegisterWhole(attachment, plan.Arm);
        }

        Journal(attachment, plan.Trap);
        if (entry.Confirmed.IsEmpty)
        {
            // Those that carry their marker already; the others are registered when they are armed, where one that fails is one failure.
            Enforcer.Register(attachment, wanted.Except(plan.Arm));
        }

        var failures = new List<ArmFailure>();
        if (!plan.Arm.IsEmpty)
        {
            failures.AddRange(Enforcer.Arm(attachment, plan.Arm, _policy));
        }

        // An incoming VMM never disarms: what its source could not deliver is a hole, whatever was cleared meanwhile. Nor does a view of a
        // database put back from a backup: it may have forgotten the page.
        var mayDisarm = attachment.IncomingFor is null && !desired.Quarantined && !promise.IsOlder(desired);
        var disarm = mayDisarm ? plan.Disarm : FrameSet.Empty;
        try
        {
            if (!disarm.IsEmpty)
            {
                failures.AddRange(Enforcer.Disarm(attachment, disarm));
                LogDisarmed(entry.Vm, disarm.Frames);
            }

            if (!plan.Arm.IsEmpty || !disarm.IsEmpty)
            {
                // The claim rests on a look at the whole set after the last change, not on the calls having succeeded.
                var unmarked = MarkerVerifier.FindUnmarked(attachment, wanted, _policy);
                failures.AddRange(unmarked.Except(FrameSet.Of(failures.Select(failure => failure.Range))).Ranges
                    .Select(range => new ArmFailure(range, "marker-not-confirmed")));
                entry.Confirmed = wanted.Except(unmarked);
            }
            else
            {
                entry.Confirmed = wanted;
            }

            if (failures.Count == 0)
            {
                Journal(attachment, mayDisarm ? wanted : plan.Trap);
            }
        }
        finally
        {
            // However it ended: an access to a page that is still trapped is no longer answered with a page.
            attachment.Healing = FrameSet.Empty;
        }

        // Armed first: telling waits for the disk.
        losses.Tell(entry, attachment);
        return failures;
    }

    // Journalled before it is so: an agent that starts later must know where threads may wait.
    private void RegisterWhole(Attachment attachment, FrameSet frames)
    {
        if (!attachment.WholeRegions && maps.WouldExhaust(attachment, frames))
        {
            if (!attachment.ServesKernelAccess)
            {
                throw new LinuxException(MapLimit.Reason, Errno.ENOMEM);
            }

            attachment.WholeRegions = true;
            journal.Save(attachment);
            LogWholeRegions(attachment.Vm, frames.Ranges.Count);
        }
    }

    private void Journal(Attachment attachment, FrameSet trapped)
    {
        // Before the first access can be intercepted.
        observer.Observe(attachment, trapped);
        if (!attachment.Trapped.Ranges.SequenceEqual(trapped.Ranges))
        {
            attachment.Trapped = trapped;
            journal.Save(attachment);
        }
    }

    private void LogChange(VmStatus? before, VmStatus after)
    {
        if (before is not null && (before.State, before.Generation, before.Reason) == (after.State, after.Generation, after.Reason))
        {
            return;
        }

        if (after.State == EnforcementStates.Armed)
        {
            LogArmed(after.Vm, after.Generation);
        }
        else
        {
            LogNotArmed(after.Vm, after.Generation, after.State, after.Reason);
        }
    }

    [LoggerMessage(1101, LogLevel.Information, "VM {Vm} is armed at generation {Generation}: the kernel confirmed every page")]
    private partial void LogArmed(string vm, long generation);

    [LoggerMessage(1102, LogLevel.Information, "VM {Vm} at generation {Generation} is not armed: {State}, {Reason}")]
    private partial void LogNotArmed(string vm, long generation, string state, string? reason);

    [LoggerMessage(1104, LogLevel.Information, "{Frames} frames of VM {Vm} were cleared and are ordinary memory again")]
    private partial void LogDisarmed(string vm, long frames);

    [LoggerMessage(1105, LogLevel.Information, "The VMM of VM {Vm}, process {Pid}, has ended")]
    private partial void LogVmmEnded(string vm, int pid);

    [LoggerMessage(2001, LogLevel.Warning, "VM {Vm}: {Ranges} more ranges could exhaust the mappings of its VMM (vm.max_map_count): all of its memory is registered instead, and while no agent runs a first access to any page waits for one")]
    private partial void LogWholeRegions(string vm, int ranges);

    [LoggerMessage(1106, LogLevel.Error, "VM {Vm} could not be enforced; what is armed stays armed, and it is tried again (and {Silent} tries more before)")]
    private partial void LogFailed(Exception exception, string vm, long silent);
}
