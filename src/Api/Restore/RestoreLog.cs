namespace Fleet.Api.Restore;

/// <summary>Event ids 2400 to 2419.</summary>
internal static partial class RestoreLog
{
    [LoggerMessage(2400, LogLevel.Warning, "The database was put back from a backup ({Evidence}): store epoch {Epoch} begins, and every VM is quarantined until the hosts have stated what they hold")]
    public static partial void Begun(ILogger logger, string evidence, long epoch);

    [LoggerMessage(2401, LogLevel.Information, "Host {Host} stated what it holds of {Vms} VMs; {Quarantined} VMs are quarantined still")]
    public static partial void Stated(ILogger logger, string host, int vms, int quarantined);

    [LoggerMessage(2402, LogLevel.Warning, "Host {Host} is fenced by an override; {Quarantined} VMs are quarantined still")]
    public static partial void Fenced(ILogger logger, string host, int quarantined);
}
