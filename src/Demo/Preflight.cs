using Fleet.Linux;
using Fleet.Linux.Userfaultfd;

namespace Fleet.Demo;

/// <summary>What this machine must permit; found out by trying. Each lack is a sentence that says what to do.</summary>
internal static class Preflight
{
    public static IReadOnlyList<string> Missing(bool needsKvm)
    {
        var missing = new List<string>();
        if (!Environment.IsPrivilegedProcess)
        {
            missing.Add("Run as root: the host agent needs CAP_SYS_PTRACE (pidfd_getfd) and CAP_SYS_ADMIN (/proc/PID/pagemap) over the VMM.");
        }

        try
        {
            if (!UserfaultfdHandle.Probe().HasFlag(UffdFeatures.Poison))
            {
                missing.Add("This kernel has no UFFDIO_POISON: Linux 6.6 or newer is needed.");
            }
        }
        catch (LinuxException exception)
        {
            missing.Add(exception.Errno switch
            {
                Errno.EPERM => "userfaultfd is not permitted: run as root, set the sysctl vm.unprivileged_userfaultfd=1, or, in a container, allow the userfaultfd system call in its seccomp profile.",
                Errno.ENOSYS => "This kernel was built without CONFIG_USERFAULTFD, or a seccomp profile hides it.",
                _ => $"userfaultfd does not work here: {exception.Message}.",
            });
        }

        if (needsKvm && MissingKvm() is { } kvm)
        {
            missing.Add(kvm);
        }

        return missing;
    }

    private static string? MissingKvm()
    {
        try
        {
            FileDescriptor.OpenRead("/dev/kvm").Dispose();
            return null;
        }
        catch (LinuxException exception)
        {
            return exception.Errno switch
            {
                Errno.ENOENT => "/dev/kvm is missing: load kvm-intel or kvm-amd; in a virtual machine, enable nested virtualisation; in a container, pass --device /dev/kvm; or use --vcpu software.",
                Errno.EACCES or Errno.EPERM => "/dev/kvm may not be opened: run as root or as a member of the group kvm; in a container, pass --device /dev/kvm.",
                _ => $"/dev/kvm does not work here: {exception.Message}.",
            };
        }
    }
}
