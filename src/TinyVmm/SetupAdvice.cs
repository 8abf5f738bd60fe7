using Fleet.Linux;

namespace Fleet.TinyVmm;

/// <summary>What to do when the host lacks a device or a right.</summary>
internal static class SetupAdvice
{
    public static string For(Exception exception) => exception switch
    {
        LinuxException { Call: var call, Errno: Errno.ENOENT } when call.Contains("/dev/kvm", StringComparison.Ordinal) =>
            $"{exception.Message}. Load the module kvm-intel or kvm-amd; in a virtual machine, enable nested virtualisation.",
        LinuxException { Call: var call, Errno: Errno.EACCES or Errno.EPERM } when call.Contains("/dev/kvm", StringComparison.Ordinal) =>
            $"{exception.Message}. Run as root or as a member of the group kvm; in a container, pass --device /dev/kvm.",
        LinuxException { Call: "userfaultfd", Errno: Errno.EPERM } =>
            $"{exception.Message}. Run as root (CAP_SYS_PTRACE), or set the sysctl vm.unprivileged_userfaultfd=1.",
        LinuxException { Call: "userfaultfd", Errno: Errno.ENOSYS } =>
            $"{exception.Message}. This kernel was built without CONFIG_USERFAULTFD.",
        LinuxException { Call: "mmap", Errno: Errno.ENOMEM } =>
            $"{exception.Message}. With --backing hugetlb, as many 2M pages must be free as the guest has: sysctl vm.nr_hugepages.",
        LinuxException { Errno: Errno.EMFILE } => $"{exception.Message}. Raise the limit of open files (ulimit -n).",
        _ => exception.Message,
    };
}
