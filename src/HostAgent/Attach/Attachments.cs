using System.Collections.Concurrent;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Metrics;
using Fleet.HostAgent.Observe;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.State;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Linux.Userfaultfd;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Attach;

/// <summary>Binds VMM processes to VMs: event handling, journal, and the life of the borrowed descriptors. Call with the entry's gate held.</summary>
public sealed partial class Attachments : IDisposable
{
    private readonly AttachmentJournal _journal;
    private readonly WorkSet _work;
    private readonly DetectionQueue _detection;
    private readonly AccessObserver _observer;
    private readonly ILogger<Attachments> _logger;
    private readonly LogPace _pace;
    private readonly UffdEventLoop _loop;
    private readonly ConcurrentDictionary<Attachment, HashSet<(string?, ulong)>> _bound = new();
    private readonly ConcurrentDictionary<ProcessIdentity, string> _claims = new();

    public Attachments(AttachmentJournal journal, WorkSet work, DetectionQueue detection, AccessObserver observer, TimeProvider time, ILogger<Attachments> logger)
    {
        (_journal, _work, _detection, _observer, _logger, _pace) = (journal, work, detection, observer, logger, new LogPace(time));
        _loop = new UffdEventLoop(exception =>
        {
            AgentMeter.EventLoopFailures.Add(1);
            // Tried again each second for as long as the VMM has no room for a page.
            if (_pace.MayTell("events") is { } silent)
            {
                LogEventFailed(exception, silent);
            }
        });
    }

    /// <summary>Takes ownership of the attachment. It is in the journal before the first page can be armed through it.</summary>
    public void Attach(VmEntry entry, Attachment attachment)
    {
        if (entry.Attachment is not null)
        {
            Release(entry);
        }

        if (_journal.Find(entry.Vm) is { } record && record.Vmm == attachment.Vmm)
        {
            // The same process, seen before: what may be armed in it is known.
            attachment.Trapped = attachment.Trapped.Union(FrameSet.Of(record.Trapped));
            attachment.Undelivered = attachment.Undelivered.Union(FrameSet.Of(record.Undelivered ?? []));
            attachment.Reported = attachment.Reported.Union(FrameSet.Of(record.Reported ?? []));
            attachment.IncomingFor = record.IncomingFor;
            attachment.MayHaveRun = record.MayHaveRun;
            attachment.WholeRegions = record.WholeRegions;
        }

        _journal.Save(attachment);
        entry.Attachment = attachment;
        _bound.TryAdd(attachment, [FileOf(attachment.Userfaultfd.Descriptor), .. attachment.Layout.Regions.Select(region => region.Backing.File).OfType<MemoryFile>().Select(file => FileOf(file.Descriptor))]);
        entry.Confirmed = FrameSet.Empty;
        _loop.Add(attachment.Userfaultfd, new FaultHandler(attachment, () => _work.Add(attachment.Vm)).Handle);
        _work.Add(entry.Vm);
        _detection.Add(entry.Vm);
        LogAttached(entry.Vm, attachment.Vmm.Pid);
    }

    /// <summary>The memory instance whose RAM a process holds, if it was attached before; also by an agent before this one.</summary>
    public long? BoundMemoryInstance(string vm, ProcessIdentity vmm) =>
        _journal.Find(vm) is { } record && record.Vmm == vmm ? record.MemoryInstance : null;

    /// <summary>The other VM that has one of these descriptors' files as its memory or userfaultfd; null when none has.</summary>
    public string? HolderOf(IReadOnlyList<FileDescriptor> descriptors, string vm)
    {
        var files = descriptors.Select(FileOf).ToList();
        return _bound.FirstOrDefault(other => other.Key.Vm != vm && other.Value.Overlaps(files)).Key?.Vm;
    }

    /// <summary>
    /// Keeps a process for one VM while it is being attached as that VM; disposed afterwards, attached or not. For processes that do not say
    /// themselves which VM they are: a clear of one VM would heal the page of the other.
    /// </summary>
    /// <returns>Null when it is another VM's already, or about to be.</returns>
    public IDisposable? Claim(ProcessIdentity vmm, string vm, out string? holder)
    {
        holder = _claims.GetOrAdd(vmm, vm);
        if (holder != vm)
        {
            return null;
        }

        holder = _bound.Keys.FirstOrDefault(other => other.Vm != vm && other.Vmm == vmm)?.Vm;
        if (holder is not null)
        {
            _claims.TryRemove(vmm, out _);
            return null;
        }

        return new ClaimedProcess(_claims, vmm);
    }

    // All of one kind live on one file system.
    private static (string?, ulong) FileOf(FileDescriptor descriptor) => (descriptor.LinkTarget, FileDescriptorInfo.Inode(descriptor));

    /// <summary>Forgets a VMM that has ended.</summary>
    public void Detach(VmEntry entry)
    {
        if (entry.Attachment is not null)
        {
            _journal.Remove(entry.Vm);
            Release(entry);
        }
    }

    /// <summary>Lets go of every VMM; what is armed stays armed, and the journal is kept for the next agent.</summary>
    public void Dispose()
    {
        _loop.Dispose();
        foreach (var attachment in _bound.Keys)
        {
            attachment.Dispose();
        }
    }

    private void Release(VmEntry entry)
    {
        if (entry.Attachment is not { } attachment)
        {
            return;
        }

        _loop.Remove(attachment.Userfaultfd);
        entry.Attachment = null;
        entry.Confirmed = FrameSet.Empty;
        entry.CancelWaiting();
        _observer.Forget(attachment);
        _bound.TryRemove(attachment, out _);
        attachment.Dispose();
    }

    private sealed class ClaimedProcess(ConcurrentDictionary<ProcessIdentity, string> claims, ProcessIdentity vmm) : IDisposable
    {
        public void Dispose() => claims.TryRemove(vmm, out _);
    }

    [LoggerMessage(1201, LogLevel.Information, "VM {Vm} is attached: VMM process {Pid}")]
    private partial void LogAttached(string vm, int pid);

    [LoggerMessage(1202, LogLevel.Error, "A userfaultfd event could not be handled; its thread waits and is woken to try again (and {Silent} more like it before)")]
    private partial void LogEventFailed(Exception exception, long silent);
}
