namespace Fleet.HostAgent;

/// <summary>Exit codes, for service managers.</summary>
public static class ExitCodes
{
    /// <summary>Settings, rights or the state folder are wrong; starting again does not help (sysexits EX_CONFIG).</summary>
    public const int Configuration = 78;

    /// <summary><c>check</c>: this host cannot enforce poisoned pages (sysexits EX_UNAVAILABLE).</summary>
    public const int Unable = 69;

    /// <summary>Another agent process claimed the host.</summary>
    public const int Superseded = 3;
}
