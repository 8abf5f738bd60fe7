using System.Globalization;
using Fleet.Linux;
using Fleet.Linux.Processes;
using Fleet.Linux.Ptrace;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>
/// The one userfaultfd that Fleet has in a QEMU process. QEMU does not know of it; it stays open there, so that what is trapped stays
/// trapped without an agent (I6), and it is found again by what it is.
/// </summary>
public static class QemuUserfaultfd
{
    // Whatever the kernel has of these is asked for: the memory's kind is not yet known when an agent finds the descriptor of another. No
    // REMOVE events: QEMU's balloon would wait for an agent that is gone.
    private const UffdFeatures Wanted = UffdFeatures.Poison | UffdFeatures.MissingShmem | UffdFeatures.MinorShmem
        | UffdFeatures.MissingHugetlbfs | UffdFeatures.MinorHugetlbfs;

    /// <param name="onStopped">Told how long the process was stopped, if it had to be.</param>
    /// <returns>The descriptor after its handshake, and its number in the process.</returns>
    /// <exception cref="QemuRejectedException"><c>vmm-traced</c>, <c>vmm-ended</c>, <c>userfaultfd-features</c>, <c>injection-failed</c>.</exception>
    public static (UserfaultfdHandle Handle, int Number) FindOrMake(ProcessIdentity vmm, Pidfd pidfd, Action<TimeSpan> onStopped)
    {
        try
        {
            var number = Find(vmm, pidfd) ?? Make(vmm, onStopped);
            var handle = new UserfaultfdHandle(pidfd.GetFd(number));
            try
            {
                if (handle.HandshakeFeatures() is null)
                {
                    handle.Handshake(Wanted & UserfaultfdHandle.Probe());
                }

                return (handle, number);
            }
            catch
            {
                handle.Dispose();
                throw;
            }
        }
        catch (LinuxException exception)
        {
            throw new QemuRejectedException(
                exception.Errno switch
                {
                    Errno.EBUSY => "vmm-traced",
                    Errno.ESRCH => "vmm-ended",
                    _ => exception.Call.StartsWith("UFFDIO", StringComparison.Ordinal) ? "userfaultfd-features" : "injection-failed",
                },
                exception.Message);
        }
    }

    /// <summary>
    /// One that an agent before this one made: its handshake asked for POISON, which QEMU's own (post-copy, background snapshot) never does;
    /// or that agent died before the handshake, which QEMU makes at once.
    /// </summary>
    public static int? Find(ProcessIdentity vmm, Pidfd pidfd)
    {
        var found = QemuDescriptors.Of(vmm.Pid).Where(descriptor => descriptor.Link == "anon_inode:[userfaultfd]").Select(descriptor => descriptor.Number).ToList();
        return found.Select(number => (int?)number).FirstOrDefault(number => FeaturesOf(pidfd, number!.Value) is var (done, features) && done && features.HasFlag(UffdFeatures.Poison))
            ?? found.Select(number => (int?)number).FirstOrDefault(number => FeaturesOf(pidfd, number!.Value) is (false, _));
    }

    /// <summary>
    /// Whether the one in this process was made without UFFD_USER_MODE_ONLY for sure: a process that has CAP_SYS_PTRACE on the host now had it
    /// then, and <see cref="FindOrMake"/> tries without the flag first.
    /// </summary>
    /// <exception cref="IOException">The process has ended.</exception>
    public static bool ServesKernelAccess(int pid)
    {
        const int CAP_SYS_PTRACE = 19;
        var line = File.ReadLines(FormattableString.Invariant($"/proc/{pid}/status")).FirstOrDefault(line => line.StartsWith("CapEff:", StringComparison.Ordinal));
        var capable = line is not null && ulong.TryParse(line.AsSpan(7).Trim(), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var bits) && (bits & (1UL << CAP_SYS_PTRACE)) != 0;
        // Capabilities in a user namespace of its own do not count.
        return capable && File.ReadAllText(FormattableString.Invariant($"/proc/{pid}/uid_map")).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries) is ["0", "0", "4294967295"];
    }

    private static (bool Done, UffdFeatures Features)? FeaturesOf(Pidfd pidfd, int number)
    {
        try
        {
            using var handle = new UserfaultfdHandle(pidfd.GetFd(number));
            return handle.HandshakeFeatures() is { } features ? (true, features) : (false, UffdFeatures.None);
        }
        catch (Exception exception) when (exception is ArgumentException or LinuxException { Errno: Errno.EBADF })
        {
            // Closed since, or another descriptor by now.
            return null;
        }
    }

    private static int Make(ProcessIdentity vmm, Action<TimeSpan> onStopped)
    {
        try
        {
            return Report(RemoteCall.Userfaultfd(vmm, userModeOnly: false), onStopped);
        }
        catch (LinuxException exception) when (exception is { Errno: Errno.EPERM, Call: not "PTRACE_SEIZE" })
        {
            // QEMU does not run as root. Markers stop KVM's accesses as well, and where one is lost a kernel-mode access fails (FACTS 3).
            return Report(RemoteCall.Userfaultfd(vmm, userModeOnly: true), onStopped);
        }
    }

    private static int Report(RemoteCallResult call, Action<TimeSpan> onStopped)
    {
        onStopped(call.Stopped);
        return (int)call.Value;
    }
}
