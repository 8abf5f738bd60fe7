using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Attach;

/// <summary>
/// What is logged of connections that came to nothing: the first of a VM and kind at once, the next one a minute later with the count of
/// those between. A VMM can try as fast as it likes.
/// </summary>
public sealed partial class RefusalLog(TimeProvider time, ILogger<RefusalLog> logger)
{
    private readonly LogPace _pace = new(time);

    public void Refused(string vm, string code, string reason)
    {
        if (_pace.MayTell(vm, code) is { } silent)
        {
            LogRefused(vm, code, reason, silent);
        }
    }

    public void Closed(string vm, string reason)
    {
        if (_pace.MayTell(vm) is { } silent)
        {
            LogClosed(vm, reason, silent);
        }
    }

    /// <summary>A defect of the agent's own.</summary>
    public void Failed(string vm, Exception exception)
    {
        if (_pace.MayTell(vm, "defect") is { } silent)
        {
            LogFailed(exception, vm, silent);
        }
    }

    [LoggerMessage(1211, LogLevel.Warning, "The handoff for VM {Vm} was refused: {Code}, {Reason} (and {Silent} more like it before)")]
    private partial void LogRefused(string vm, string code, string reason, long silent);

    [LoggerMessage(1212, LogLevel.Information, "The connection of VM {Vm}'s VMM ended: {Reason} (and {Silent} more like it before)")]
    private partial void LogClosed(string vm, string reason, long silent);

    [LoggerMessage(1222, LogLevel.Error, "A connection of VM {Vm}'s VMM ended with a defect (and {Silent} more like it before)")]
    private partial void LogFailed(Exception exception, string vm, long silent);
}
