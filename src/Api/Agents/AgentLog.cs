namespace Fleet.Api.Agents;

/// <summary>Event ids 2200 to 2239 and 2420 to 2424. Nothing at Information per heartbeat, report or page.</summary>
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

    [LoggerMessage(2205, LogLevel.Information, "Stopping: {Streams} desired-state streams end, and their agents are asked to come back over {Window} s")]
    public static partial void StreamsStopping(ILogger logger, int streams, double window);

    [LoggerMessage(2206, LogLevel.Error, "{Silent} of {Online} online hosts fell silent at one time: more likely this process, or the network before it, than they. They stay online, though nothing of theirs counts as armed, for up to {Limit} s")]
    public static partial void ExpiryBraked(ILogger logger, int silent, int online, double limit);

    [LoggerMessage(2207, LogLevel.Warning, "{Silent} hosts that the brake on mass expiry held are still silent: they are unknown from now on")]
    public static partial void BrakeReleased(ILogger logger, int silent);

    [LoggerMessage(2208, LogLevel.Error, "Host {Host} is contested: two agent processes claim it in turn, as after a copy of a state folder. Incarnation {Holder} keeps it; stop the other, or revoke the credential and enrol the right one")]
    public static partial void HostContested(ILogger logger, string host, long holder);

    [LoggerMessage(2209, LogLevel.Information, "Host {Host} is no longer contested: {Why}")]
    public static partial void ContestEnded(ILogger logger, string host, string why);

    [LoggerMessage(2420, LogLevel.Warning, "Report {Sequence} of host {Host}, spool {Spool}, is malformed and was rejected for good. Wrong are: {Members}")]
    public static partial void ReportMalformed(ILogger logger, long sequence, string host, string spool, string members);

    [LoggerMessage(2421, LogLevel.Warning, "An acknowledgement of host {Host} is malformed and counts for nothing. Wrong are: {Members}")]
    public static partial void AckMalformed(ILogger logger, string host, string members);
}
