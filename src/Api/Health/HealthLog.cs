namespace Fleet.Api.Health;

/// <summary>Event ids 2020 to 2029.</summary>
internal static partial class HealthLog
{
    [LoggerMessage(2020, LogLevel.Warning, "The store cannot be read")]
    public static partial void NotReady(ILogger logger, Exception exception);
}
