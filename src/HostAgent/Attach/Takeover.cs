using Fleet.Contracts.Vms;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.State;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Linux.Userfaultfd;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Attach;

/// <summary>
/// At start: finds the VMMs of the agent process before this one again, borrows their descriptors anew (pidfd_getfd) and
/// carries on. Without the VMM's help, and without the control plane.
/// </summary>
public sealed partial class Takeover(AttachmentJournal journal, VmTable table, Attachments attachments, Qemu.QemuOpener qemu, ILogger<Takeover> logger)
{
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        foreach (var record in journal.Load())
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (Pidfd.Open(record.Vmm) is not { } pidfd)
            {
                LogGone(record.Vm, record.Vmm.Pid);
                Remove(record);
                continue;
            }

            if (TryOpen(record, pidfd) is { } attachment)
            {
                await BindAsync(table.GetOrAdd(record.Vm), attachment, cancellationToken);
            }
        }
    }

    private async Task BindAsync(VmEntry entry, Attachment attachment, CancellationToken cancellationToken)
    {
        await entry.Gate.WaitAsync(cancellationToken);
        try
        {
            WakeWaiting(attachment);
            if (entry.Attachment is not null)
            {
                // The VMM was faster and handed over again by itself.
                attachment.Dispose();
                return;
            }

            attachments.Attach(entry, attachment);
            LogTaken(entry.Vm, attachment.Vmm.Pid, attachment.Trapped.Frames);
        }
        catch (IOException exception)
        {
            // Its record cannot be brought up to date: as if it could not be opened. The others are taken over.
            LogNotTaken(exception, entry.Vm, attachment.Vmm.Pid);
            attachment.Dispose();
        }
        finally
        {
            entry.Gate.Release();
        }
    }

    private void Remove(AttachmentRecord record)
    {
        try
        {
            journal.Remove(record.Vm);
        }
        catch (IOException exception)
        {
            // The next agent finds it gone again.
            LogNotRemoved(record.Vm, exception.Message);
        }
    }

    private Attachment? TryOpen(AttachmentRecord record, Pidfd pidfd)
    {
        var opened = new List<IDisposable> { pidfd };
        try
        {
            var userfaultfd = new UserfaultfdHandle(Keep(opened, pidfd.GetFd(record.Userfaultfd)));
            var regions = record.Regions.Select(region => Open(region, pidfd, opened)).ToList();
            return new Attachment(record.Vm, record.MemoryInstance, record.Vmm, pidfd, userfaultfd, record.Userfaultfd, new GuestLayout(regions))
            {
                Kind = record.Kind,
                ServesKernelAccess = record.Kind != AttachKinds.Qemu || Qemu.QemuUserfaultfd.ServesKernelAccess(record.Vmm.Pid),
                Zapper = record.Kind == AttachKinds.Qemu ? qemu.Zapper(record.Vmm) : null,
                Trapped = FrameSet.Of(record.Trapped),
                HasBarrier = record.HasBarrier,
                IncomingFor = record.IncomingFor,
                MayHaveRun = record.MayHaveRun,
                Undelivered = FrameSet.Of(record.Undelivered ?? []),
                Reported = FrameSet.Of(record.Reported ?? []),
                WholeRegions = record.WholeRegions,
            };
        }
        catch (Exception exception) when (exception is LinuxException or ArgumentException or InvalidDataException)
        {
            // The process lives, but its descriptors are not the recorded ones. Its markers enforce on; the VMM can hand over again.
            LogNotTaken(exception, record.Vm, record.Vmm.Pid);
            opened.ForEach(handle => handle.Dispose());
            return null;
        }
    }

    private static GuestRegion Open(RegionRecord region, Pidfd pidfd, List<IDisposable> opened) =>
        new(region.GuestPhysicalAddress, region.Bytes, region.HostVirtualAddress, region.PageBytes, OpenBacking(region, pidfd, opened));

    private static GuestBacking OpenBacking(RegionRecord region, Pidfd pidfd, List<IDisposable> opened)
    {
        if (region.BackingNumber is not { } number)
        {
            return GuestBacking.Anonymous(region.PageBytes);
        }

        var backing = GuestBacking.OfFile(new MemoryFile(Keep(opened, pidfd.GetFd(number))), number, region.BackingOffset);
        var identity = backing.Identity!.Value;
        return backing.Kind == region.BackingKind && identity.Inode == region.BackingInode && (region.BackingDevice ?? identity.Device) == identity.Device
            ? backing
            : throw new InvalidDataException("the recorded descriptor is not the guest's memory any more");
    }

    // An event that the dead agent had read already is not sent again: whoever waits on it must fault once more.
    private static void WakeWaiting(Attachment attachment)
    {
        // With whole regions registered, that may be anywhere.
        var parts = attachment.WholeRegions
            ? attachment.Layout.Regions.Select(region => new HostRange(region, 0, region.Bytes))
            : attachment.Trapped.Ranges.SelectMany(attachment.Layout.Locate);
        foreach (var part in parts)
        {
            try
            {
                attachment.Userfaultfd.Wake(part.HostVirtualAddress, (ulong)part.Bytes);
            }
            catch (LinuxException exception) when (exception.Errno is Errno.ENOENT or Errno.EINVAL)
            {
                // Journalled, but the agent died before it was registered: nobody can wait there.
            }
        }
    }

    private static FileDescriptor Keep(List<IDisposable> opened, FileDescriptor descriptor)
    {
        opened.Add(descriptor);
        return descriptor;
    }

    [LoggerMessage(1301, LogLevel.Information, "VM {Vm}: VMM process {Pid} was taken over again with {Frames} trapped frames")]
    private partial void LogTaken(string vm, int pid, long frames);

    [LoggerMessage(1302, LogLevel.Information, "VM {Vm}: VMM process {Pid} has ended while no agent ran")]
    private partial void LogGone(string vm, int pid);

    [LoggerMessage(2301, LogLevel.Warning, "VM {Vm}: the record of its VMM, which has ended, cannot be removed from the state folder: {Problem}")]
    private partial void LogNotRemoved(string vm, string problem);

    [LoggerMessage(1303, LogLevel.Error, "VM {Vm}: VMM process {Pid} lives but could not be taken over; what is armed in it stays armed, and it can hand over again")]
    private partial void LogNotTaken(Exception exception, string vm, int pid);
}
