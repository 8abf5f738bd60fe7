namespace Fleet.Api.Changes;

internal static partial class ChangeLogging
{
    [LoggerMessage(2410, LogLevel.Information, "Retention removed {Changes} changes, {Hits} hits and {Faults} memory errors")]
    public static partial void Compacted(ILogger logger, int changes, int hits, int faults);

    [LoggerMessage(2411, LogLevel.Error, "Retention could not write; it is tried again")]
    public static partial void RetentionFailed(ILogger logger, Exception exception);
}
