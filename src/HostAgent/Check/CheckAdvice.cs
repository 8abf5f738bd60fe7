using Fleet.HostAgent.ControlPlane;

namespace Fleet.HostAgent.Check;

/// <summary>What an operator can do about what is missing.</summary>
internal static class CheckAdvice
{
    public static IEnumerable<string> For(IReadOnlyDictionary<string, string> capabilities, bool privileged)
    {
        if (!privileged)
        {
            yield return "Run as root: the agent borrows descriptors of the VMMs (CAP_SYS_PTRACE) and reads their page tables (CAP_SYS_ADMIN).";
        }

        if (Lacks(capabilities, "userfaultfd", out var reason))
        {
            yield return reason.Contains("ENOSYS", StringComparison.Ordinal)
                ? "This kernel was built without CONFIG_USERFAULTFD: boot one that has it."
                : $"userfaultfd cannot be used ({reason}): run as root, and let the sandbox or seccomp filter around the agent allow the call.";
            yield break;
        }

        if (Lacks(capabilities, "userfaultfd.poison", out _))
        {
            yield return "UFFDIO_POISON needs Linux 6.6: boot a newer kernel.";
        }
        else if (Lacks(capabilities, CapabilityProbe.MarkerOnMemfd, out reason))
        {
            yield return $"Pages of memfd memory cannot be enforced: {reason}.";
        }

        if (Lacks(capabilities, "policy.marker.hugetlb", out reason))
        {
            yield return $"VMs on 2 MiB huge pages cannot be enforced here: {reason}. They need Linux 6.7 (PAGEMAP_SCAN) and hugetlbfs.";
        }
    }

    private static bool Lacks(IReadOnlyDictionary<string, string> capabilities, string name, out string reason)
    {
        var value = capabilities.GetValueOrDefault(name, "no: not probed");
        reason = value.StartsWith("no: ", StringComparison.Ordinal) ? value[4..] : value;
        return value != "yes";
    }
}
