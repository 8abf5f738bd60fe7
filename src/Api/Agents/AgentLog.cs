namespace Fleet.Api.Agents;

/// <summary>Event ids 2200 to 2239. Nothing at Information per heartbeat, report or page.</summary>
internal static partial class AgentLog
{
    [LoggerMessage(2200, LogLevel.Information, "Host {Host} was claimed: incarnation {Incarnation}, agent {AgentVersion}, kernel {Kernel}")]
    public static partial void HostClaimed(ILogger logger, string host, long incarnation, string agentVersion, string kernel);

    [LoggerMessage(2201, LogLevel.Information, "Host {Host} went from {From} to {To}")]
    public static partial void HostState(ILogger logger, string host, string from, string to);

    [LoggerMessage(2202, LogLevel.Warning, "Host states could not be written; trying again")]
    public static partial void SweepFailed(ILogger logger, Exception exception);

    [LoggerMessage(2203, LogLevel.Warning, "{Count} reports of host {Host}, spool {Spool}, can never be applied; the first is {Sequence}: {Code}")]
    public static partial void ReportsRejected(ILogger logger, int count, string host, string spool, long sequence, string code);

    [LoggerMessage(2204, LogLevel.Debug, "Desired-state stream of host {Host}, incarnation {Incarnation}, ended: {Why}")]
    public static partial void StreamEnded(ILogger logger, string host, long incarnation, string why);
}
