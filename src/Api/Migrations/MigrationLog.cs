namespace Fleet.Api.Migrations;

/// <summary>Event ids 2300 to 2319.</summary>
internal static partial class MigrationLog
{
    [LoggerMessage(2300, LogLevel.Warning, "Migrations past their time could not be ended; trying again")]
    public static partial void SweepFailed(ILogger logger, Exception exception);

    [LoggerMessage(2301, LogLevel.Information, "Migration {Migration} was past its time and is ended")]
    public static partial void Expired(ILogger logger, string migration);
}
