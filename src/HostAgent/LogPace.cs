namespace Fleet.HostAgent;

/// <summary>
/// For lines that somebody else could bring about as fast as they like: the first of a kind is told at once, the next one a minute later with the
/// count of those between.
/// </summary>
internal sealed class LogPace(TimeProvider time)
{
    private static readonly TimeSpan Pause = TimeSpan.FromMinutes(1);
    private readonly Lock _lock = new();
    private readonly Dictionary<(string Of, string Kind), (long At, long Silent)> _told = [];

    /// <param name="of">A VM, or what else there is a fixed number of.</param>
    /// <param name="kind">One of a few.</param>
    /// <param name="count">How much the line would tell of.</param>
    /// <returns>How much was not told since the last line; null when this one is not told either.</returns>
    public long? MayTell(string of, string kind = "", long count = 1)
    {
        lock (_lock)
        {
            var known = _told.TryGetValue((of, kind), out var last);
            if (known && time.GetElapsedTime(last.At) < Pause)
            {
                _told[(of, kind)] = last with { Silent = last.Silent + count };
                return null;
            }

            _told[(of, kind)] = (time.GetTimestamp(), 0);
            return last.Silent;
        }
    }
}
