using Fleet.Contracts;
using Fleet.HostAgent.Enforce;

namespace Fleet.HostAgent.Options;

/// <summary>Settings of the host agent, section <c>Agent</c> (command line, environment <c>Agent__…</c>, appsettings.json).</summary>
public sealed class AgentOptions
{
    public const string Section = "Agent";

    /// <summary>Id of this host in the fleet.</summary>
    public string Host { get; set; } = string.Empty;

    /// <summary>Base address of the control plane, such as <c>http://127.0.0.1:5480</c>.</summary>
    public string ControlPlane { get; set; } = string.Empty;

    /// <summary>Single-use token for the first start; ignored once a credential is in the state folder.</summary>
    public string? JoinToken { get; set; }

    /// <summary>File that holds the join token; keeps it out of process listings.</summary>
    public string? JoinTokenFile { get; set; }

    /// <summary>Folder for the credential, the spool and the journals; <c>state</c> beside the program by default.</summary>
    public string StateFolder { get; set; } = Path.Combine(AppContext.BaseDirectory, "state");

    /// <summary>Folder in which a socket <c>{vm}.sock</c> is made for each VM that attaches by handoff; <c>vmm</c> in the state folder by default.</summary>
    public string? VmmSocketFolder { get; set; }

    /// <summary>Folders, separated by <c>:</c>, from which the control plane may name sockets and files. Empty: none.</summary>
    public string AllowedPaths { get; set; } = string.Empty;

    /// <summary>Folder with QEMU's standard error in one file <c>{vm}.log</c> for each VM that attaches by qemu: addresses of memory failures. Null: not read.</summary>
    public string? QemuLogFolder { get; set; }

    /// <summary><c>marker</c>: pages are poisoned when they are armed, and the kernel enforces with no agent in the loop;
    /// <c>trap</c>: when they are first touched, for VMMs without asynchronous page faults.</summary>
    public string Policy { get; set; } = "marker";

    /// <summary>How often armed pages are verified again, in seconds.</summary>
    public int VerifySeconds { get; set; } = 10;

    /// <summary>
    /// Most mappings that a VMM may have before its whole memory is registered instead of each armed range; 0: the kernel's
    /// vm.max_map_count.
    /// </summary>
    public int MapCountLimit { get; set; }

    /// <summary>Most bytes that wait in the spool before the agent takes no more events from its VMMs (they keep them meanwhile).</summary>
    public long SpoolBytes { get; set; } = 64L << 20;

    /// <summary>Allow http to a control plane that is not on loopback. The credential then travels in the clear.</summary>
    public bool AllowPlainHttp { get; set; }

    /// <summary>PEM file with the authorities that may vouch for the control plane; the system's are then not asked. Null: the system's.</summary>
    public string? ControlPlaneCa { get; set; }

    /// <summary>PEM file with the certificate that the agent shows, and those between it and its authority.</summary>
    public string? ClientCertificate { get; set; }

    /// <summary>PEM file with its private key.</summary>
    public string? ClientKey { get; set; }

    /// <summary>How old the credential may get before the agent replaces it: a duration such as <c>30d</c>.</summary>
    public string CredentialLifetime { get; set; } = "30d";

    internal EnforcementPolicy EnforcementPolicy => Policy == "trap" ? EnforcementPolicy.Trap : EnforcementPolicy.Marker;

    internal TimeSpan CredentialLifetimeSpan => DurationText.TryParse(CredentialLifetime, out var span) ? span : TimeSpan.FromDays(30);

    /// <summary>Loopback address and port for <c>/metrics</c>, such as <c>127.0.0.1:9482</c>; port 0 takes a free one. Null: none.</summary>
    public string? Metrics { get; set; }

    public string VmmSockets => VmmSocketFolder ?? Path.Combine(StateFolder, "vmm");
}
