namespace Fleet.Api.Restore;

/// <summary>Event ids 2400 to 2419, and 2440 to 2459.</summary>
internal static partial class RestoreLog
{
    [LoggerMessage(2400, LogLevel.Warning, "The database was put back from a backup ({Evidence}): store epoch {Epoch} begins, and every VM is quarantined until the hosts have stated what they hold")]
    public static partial void Begun(ILogger logger, string evidence, long epoch);

    [LoggerMessage(2401, LogLevel.Information, "Host {Host} stated what it holds of {Vms} VMs; {Quarantined} VMs are quarantined still")]
    public static partial void Stated(ILogger logger, string host, int vms, int quarantined);

    [LoggerMessage(2402, LogLevel.Warning, "Host {Host} is fenced by an override; {Quarantined} VMs are quarantined still")]
    public static partial void Fenced(ILogger logger, string host, int quarantined);

    [LoggerMessage(2440, LogLevel.Warning, "Host {Host} stated {Count} VMs that are none of its as far as is known, after their quarantine had ended: ignored. If a guest of theirs runs there, end it: {Vms}")]
    public static partial void Ignored(ILogger logger, string host, int count, string vms);
}
