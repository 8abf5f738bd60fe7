using Microsoft.Extensions.Logging;

namespace Fleet.Data;

/// <summary>Event ids 1000 to 1099, and 2425.</summary>
internal static partial class StoreLog
{
    [LoggerMessage(1000, LogLevel.Error, "A batch of {Count} changes could not be committed; none of it is stored")]
    public static partial void BatchFailed(ILogger logger, int count, Exception exception);

    [LoggerMessage(1001, LogLevel.Error, "An observer of commits failed")]
    public static partial void ObserverFailed(ILogger logger, Exception exception);

    [LoggerMessage(1002, LogLevel.Debug, "Committed up to revision {Revision}: {Count} commands")]
    public static partial void Committed(ILogger logger, long revision, int count);

    // Whether it is wanted is asked once for a batch.
    [LoggerMessage(1003, LogLevel.Information, "Change {Revision}: {Kind} of {Resource} by {Actor}", SkipEnabledCheck = true)]
    public static partial void Changed(ILogger logger, long revision, string kind, string resource, string actor);

    [LoggerMessage(2425, LogLevel.Error, "What follows a commit failed; what was committed stays")]
    public static partial void AfterCommitFailed(ILogger logger, Exception exception);
}
