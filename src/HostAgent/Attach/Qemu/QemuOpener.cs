using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.Linux;
using Fleet.Linux.Processes;
using Fleet.Linux.Userfaultfd;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>Borrows the memory of a QEMU process, and makes the attachment.</summary>
public sealed partial class QemuOpener(Attachments attachments, QemuMeter meter, ILogger<QemuOpener> logger)
{
    /// <param name="pidfd">On success owned by the attachment; on a rejection by the caller.</param>
    /// <exception cref="QemuRejectedException">With a stable code.</exception>
    public Attachment Open(DesiredVm desired, QemuRam ram, ProcessIdentity vmm, Pidfd pidfd)
    {
        GuestLayout? layout = null;
        UserfaultfdHandle? userfaultfd = null;
        try
        {
            // All that can be known from outside comes first: no process is stopped that is not the VM's QEMU.
            layout = QemuLayout.Open(QemuLayout.Place(desired.Memory, ram), vmm, pidfd);
            (userfaultfd, var number) = QemuUserfaultfd.FindOrMake(vmm, pidfd, time => Stopped(desired.Vm, vmm.Pid, time));
            RequireFeatures(userfaultfd, layout);
            var bound = attachments.BoundMemoryInstance(desired.Vm, vmm);
            if (bound is null)
            {
                // Not for a process seen before: the check would take an armed page's registration away.
                RequireFree(userfaultfd, layout);
            }

            return new Attachment(desired.Vm, bound ?? desired.MemoryInstance, vmm, pidfd, userfaultfd, number, layout)
            {
                Kind = AttachKinds.Qemu,
                ServesKernelAccess = QemuUserfaultfd.ServesKernelAccess(vmm.Pid),
                Zapper = Zapper(vmm),
                MayHaveRun = true,
            };
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or LinuxException)
        {
            Undo(userfaultfd, layout);
            throw pidfd.HasExited()
                ? new QemuRejectedException("vmm-ended", "the QEMU process has ended")
                : new QemuRejectedException("injection-failed", exception.Message);
        }
        catch
        {
            Undo(userfaultfd, layout);
            throw;
        }
    }

    /// <summary>For an attachment that is taken over from the journal.</summary>
    public InjectedZapper Zapper(ProcessIdentity vmm) => new(vmm, meter.Stopped);

    private void Stopped(string vm, int pid, TimeSpan time)
    {
        meter.Stopped(time);
        LogStopped(vm, pid, (long)time.TotalMicroseconds);
    }

    // A userfaultfd that was made stays in QEMU: the next try finds it.
    private static void Undo(UserfaultfdHandle? userfaultfd, GuestLayout? layout)
    {
        userfaultfd?.Dispose();
        foreach (var region in layout?.Regions ?? [])
        {
            region.Backing.Dispose();
        }
    }

    private static void RequireFeatures(UserfaultfdHandle userfaultfd, GuestLayout layout)
    {
        var needed = layout.Regions.Aggregate(UffdFeatures.None, (sum, region) => sum | region.Backing.Features);
        if ((userfaultfd.HandshakeFeatures() & needed) != needed)
        {
            throw new QemuRejectedException("userfaultfd-features", $"this kernel cannot do {needed}");
        }
    }

    private static void RequireFree(UserfaultfdHandle userfaultfd, GuestLayout layout)
    {
        foreach (var region in layout.Regions)
        {
            try
            {
                userfaultfd.Register(region.HostVirtualAddress, (ulong)region.PageBytes, region.Backing.RegisterMode);
                userfaultfd.Unregister(region.HostVirtualAddress, (ulong)region.PageBytes);
            }
            catch (LinuxException exception)
            {
                throw exception.Errno == Errno.EBUSY
                    ? new QemuRejectedException("busy-userfaultfd", "another userfaultfd holds this memory (QEMU's own, while a post-copy migration or a background snapshot is under way)")
                    : new QemuRejectedException("userfaultfd-features", $"the memory at {HexAddress.Format(region.HostVirtualAddress)} cannot be registered ({exception.Call}: {exception.Errno})");
            }
        }
    }

    [LoggerMessage(2142, LogLevel.Information, "VM {Vm}: a thread of QEMU process {Pid} was stopped for {Microseconds} µs to make a userfaultfd")]
    private partial void LogStopped(string vm, int pid, long microseconds);
}
