using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Attach;

/// <summary>
/// What is logged of connections that came to nothing: the first of a VM and kind at once, the next one a minute later with the count of
/// those between. A VMM can try as fast as it likes.
/// </summary>
public sealed partial class RefusalLog(TimeProvider time, ILogger<RefusalLog> logger)
{
    private static readonly TimeSpan Pause = TimeSpan.FromMinutes(1);
    private readonly Lock _lock = new();
    private readonly Dictionary<(string Vm, string Code), (long At, long Silent)> _told = [];

    public void Refused(string vm, string code, string reason)
    {
        if (MayTell(vm, code) is { } silent)
        {
            LogRefused(vm, code, reason, silent);
        }
    }

    public void Closed(string vm, string reason)
    {
        if (MayTell(vm, string.Empty) is { } silent)
        {
            LogClosed(vm, reason, silent);
        }
    }

    /// <returns>How many were not told since the last; null when this one is not told either.</returns>
    private long? MayTell(string vm, string code)
    {
        lock (_lock)
        {
            var known = _told.TryGetValue((vm, code), out var last);
            if (known && time.GetElapsedTime(last.At) < Pause)
            {
                _told[(vm, code)] = last with { Silent = last.Silent + 1 };
                return null;
            }

            _told[(vm, code)] = (time.GetTimestamp(), 0);
            return last.Silent;
        }
    }

    [LoggerMessage(1211, LogLevel.Warning, "The handoff for VM {Vm} was refused: {Code}, {Reason} (and {Silent} more like it before)")]
    private partial void LogRefused(string vm, string code, string reason, long silent);

    [LoggerMessage(1212, LogLevel.Information, "The connection of VM {Vm}'s VMM ended: {Reason} (and {Silent} more like it before)")]
    private partial void LogClosed(string vm, string reason, long silent);
}
