namespace Fleet.Api.Problems;

/// <summary>Event ids 2000 to 2009.</summary>
internal static partial class ProblemLog
{
    [LoggerMessage(2000, LogLevel.Error, "A request failed")]
    public static partial void Unhandled(ILogger logger, Exception exception);
}
