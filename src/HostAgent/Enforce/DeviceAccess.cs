using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Options;
using Fleet.Linux;
using Fleet.Linux.Processes;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Enforce;

/// <summary>
/// Whether something reaches a guest's memory past its VMM's page tables, where no marker is (I1): pinned pages, a device
/// with an IOMMU of its own, or another process that maps the memory (a vhost-user back-end).
/// </summary>
public sealed partial class DeviceAccess(IOptions<AgentOptions> options, TimeProvider time, ILogger<DeviceAccess> logger)
{
    // Asking costs a look at every process of the host. What was found is looked at again soon, so that it goes with its cause;
    // half of the interval, so that each verification looks.
    private static readonly TimeSpan Found = TimeSpan.FromSeconds(1);
    private readonly Lock _scanning = new();
    private IReadOnlyDictionary<int, IReadOnlySet<FileIdentity>>? _scan;
    private long _scannedAt;
    private readonly TimeSpan _notFound = TimeSpan.FromSeconds(options.Value.VerifySeconds / 2.0);

    /// <summary>As of the last look, or of one now where that was too long ago. Call with the entry's gate held.</summary>
    /// <returns>Who or what it is; null when there is nothing.</returns>
    public string? Look(Attachment attachment) =>
        attachment.Devices is { } last && time.GetElapsedTime(last.At) < (last.Found is null ? _notFound : Found) ? last.Found : Look(attachment, now: false);

    /// <summary>For what depends on it: a device can come at any time.</summary>
    public string? LookNow(Attachment attachment) => Look(attachment, now: true);

    private string? Look(Attachment attachment, bool now)
    {
        var found = Find(attachment, now);
        if (found != attachment.Devices?.Found)
        {
            Log(attachment.Vm, found);
        }

        attachment.Devices = new DeviceLook(found, time.GetTimestamp());
        return found;
    }

    // All VMs of a round of verification share one scan of the host's processes.
    private IReadOnlyDictionary<int, IReadOnlySet<FileIdentity>> Scan(bool now)
    {
        lock (_scanning)
        {
            if (now || _scan is null || time.GetElapsedTime(_scannedAt) >= Found)
            {
                (_scan, _scannedAt) = (MemoryFileUsers.Scan(), time.GetTimestamp());
            }

            return _scan;
        }
    }

    private string? Find(Attachment attachment, bool now)
    {
        var pid = attachment.Vmm.Pid;
        try
        {
            // Without amounts: the same cause must stay the same text.
            if (ProcessPins.PinnedBytes(pid) > 0)
            {
                return $"the VMM, process {pid}, has pinned pages (VmPin): a device or io_uring reaches them directly";
            }

            if (ProcessPins.OpenDevice(pid) is { } device)
            {
                return $"the VMM, process {pid}, has {device} open";
            }

            var memory = attachment.Layout.Regions.Select(region => region.Backing.Identity).OfType<FileIdentity>().ToHashSet();
            return MemoryFileUsers.FindOther(Scan(now), memory, pid, Environment.ProcessId) is var (other, name)
                ? $"process {other} ({name}) maps the guest's memory itself"
                : null;
        }
        catch (IOException)
        {
            // The VMM has ended: nothing of it is confirmed anyway.
            return null;
        }
        catch (UnauthorizedAccessException)
        {
            return $"the agent may not look at process {pid}, and cannot rule out that it has a device";
        }
    }

    private void Log(string vm, string? found)
    {
        if (found is not null)
        {
            LogFound(vm, found);
        }
        else
        {
            LogGone(vm);
        }
    }

    [LoggerMessage(1801, LogLevel.Warning, "VM {Vm}: device-dma: {Found}; accesses that way cannot be stopped, so it is not called armed, and it may not resume here")]
    private partial void LogFound(string vm, string found);

    [LoggerMessage(1802, LogLevel.Information, "VM {Vm}: nothing reaches the guest's memory past the VMM any more")]
    private partial void LogGone(string vm);
}

/// <param name="At">As <see cref="TimeProvider.GetTimestamp"/>.</param>
public sealed record DeviceLook(string? Found, long At);
