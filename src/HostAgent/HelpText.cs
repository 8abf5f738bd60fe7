namespace Fleet.HostAgent;

internal static class HelpText
{
    public const string Text = """
        fleet-agent: keeps the poisoned pages of this host's VMs poisoned.

        Usage: Fleet.HostAgent --Agent:Host=ID --Agent:ControlPlane=URL [settings]
               Fleet.HostAgent check [--json]
               Fleet.HostAgent --help | --version

        check tries on throw-away memory what this kernel lets the agent do, prints the table, and changes nothing: exit code 0 when
        poisoned pages can be enforced, 69 when not, with what to do about it.

        Every setting can also be an environment variable (Agent__Host=…) or stand in appsettings.json beside the program.

          Agent:Host             id of this host in the fleet (required)
          Agent:ControlPlane     address of the control plane, such as http://127.0.0.1:5480 (required)
          Agent:JoinToken        single-use token for the first start
          Agent:JoinTokenFile    file that holds it, alone or as the answer that gave it; keeps it out of process listings
          Agent:StateFolder      credential, spool and journals (default: state, beside the program)
          Agent:VmmSocketFolder  a socket {vm}.sock for each VM that attaches by handoff (default: vmm, in the state folder)
          Agent:AllowedPaths     folders, separated by ':', from which the control plane may name sockets (default: none)
          Agent:QemuLogFolder    {vm}.log in it is QEMU's standard error, for VMs that attach by qemu: the addresses of memory
                                 failures are read there (default: not read)
          Agent:Policy           marker (default): pages are poisoned when they are armed;
                                 trap: when they are first touched, for VMMs without asynchronous page faults
          Agent:VerifySeconds    how often armed pages are verified again (default: 10)
          Agent:MapCountLimit    mappings a VMM may have before its whole memory is registered (default: 0, the kernel's)
          Agent:SpoolBytes       most bytes that wait for the control plane (default: 67108864)
          Agent:ControlPlaneCa   PEM file with the authorities to trust for https (default: the system's)
          Agent:ClientCertificate, Agent:ClientKey
                                 PEM files of the certificate to show, where the control plane asks for one
          Agent:CredentialLifetime
                                 age at which the credential is replaced (default: 30d)
          Agent:AllowPlainHttp   allow http to a control plane that is not on loopback (default: false)
          Agent:Metrics          address on loopback for /metrics, such as 127.0.0.1:9482 (default: none)
          Agent:LogFormat        text (default) or json

        Needs root: CAP_SYS_PTRACE for pidfd_getfd and ptrace, CAP_SYS_ADMIN for /proc/PID/pagemap of the VMMs, /proc/kpageflags and tracefs.
        Exit codes: 0 stopped, 3 another agent claimed the host, 78 settings, rights or state folder.
        """;
}
