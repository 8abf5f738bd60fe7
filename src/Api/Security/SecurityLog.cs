namespace Fleet.Api.Security;

/// <summary>Event ids 2100 to 2119. Never a token, a hash or a header.</summary>
internal static partial class SecurityLog
{
    [LoggerMessage(2100, LogLevel.Information, "The administrator's token was created and is in {Path}")]
    public static partial void AdminTokenCreated(ILogger logger, string path);

    [LoggerMessage(2101, LogLevel.Warning,
        "There is an administrator's credential, but {Path} is gone. No other one is made: put the file back, or use a token kept elsewhere")]
    public static partial void AdminTokenGone(ILogger logger, string path);

    [LoggerMessage(2102, LogLevel.Information, "An agent was enrolled for host {Host} with credential {Credential}")]
    public static partial void AgentEnrolled(ILogger logger, string host, string credential);

    [LoggerMessage(2104, LogLevel.Information, "Credential {Credential} was revoked by {Actor}")]
    public static partial void Revoked(ILogger logger, string credential, string actor);

    [LoggerMessage(2105, LogLevel.Information, "The agent of host {Host} replaces credential {Credential} by {Successor}")]
    public static partial void Rotated(ILogger logger, string host, string credential, string successor);

    [LoggerMessage(2106, LogLevel.Warning, "When credentials were last used could not be written; trying again")]
    public static partial void LastUseFailed(ILogger logger, Exception exception);

    [LoggerMessage(2110, LogLevel.Warning, "Refused: {Code}, of {Caller}, at {Route}. More of the same are counted and told once a minute")]
    public static partial void Refused(ILogger logger, string code, string caller, string route);

    [LoggerMessage(2111, LogLevel.Warning, "Refused: {Code}, of {Caller}, at {Route}, {Count} times more")]
    public static partial void RefusedMore(ILogger logger, string code, string caller, string route, int count);
}
