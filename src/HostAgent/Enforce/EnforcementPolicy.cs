namespace Fleet.HostAgent.Enforce;

/// <summary>When a page gets its poison marker.</summary>
public enum EnforcementPolicy
{
    /// <summary>When it is armed: the kernel enforces with no agent in the loop.</summary>
    Marker,

    /// <summary>
    /// At the first access, which arrives as a userfaultfd event. Until then the page is a registered hole: an access without an
    /// agent blocks. Only for VMMs without asynchronous page faults (FACTS 3).
    /// </summary>
    Trap,
}
