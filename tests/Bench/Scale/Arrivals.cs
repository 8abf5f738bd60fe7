using System.Collections.Concurrent;
using System.Diagnostics;

namespace Fleet.Bench.Scale;

/// <summary>When each of a known number of things happened for the first time, from a common start.</summary>
internal sealed class Arrivals(int expected)
{
    private readonly ConcurrentDictionary<string, long> _at = new(StringComparer.Ordinal);
    private readonly TaskCompletionSource _all = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly long _start = Stopwatch.GetTimestamp();

    public int Count => _at.Count;

    public void Add(string which)
    {
        if (_at.TryAdd(which, Stopwatch.GetTimestamp()) && _at.Count >= expected)
        {
            _all.TrySetResult();
        }
    }

    /// <exception cref="TimeoutException">Not all within the time; the message says how many.</exception>
    public async Task AllAsync(string what, TimeSpan atMost, CancellationToken cancellationToken)
    {
        try
        {
            await _all.Task.WaitAsync(atMost, cancellationToken);
        }
        catch (TimeoutException)
        {
            throw new TimeoutException($"{what}: {Count} of {expected} within {atMost.TotalSeconds:0} s");
        }
    }

    /// <summary>First, median, 99th percentile and last, from the common start.</summary>
    public Spread Spread() => Scale.Spread.Of(_at.Values.Select(at => Stopwatch.GetElapsedTime(_start, at)));

    /// <summary>The same, for each from its own start in the other.</summary>
    public Spread Since(Arrivals other) => Scale.Spread.Of(_at.Select(item => Stopwatch.GetElapsedTime(other._at[item.Key], item.Value)));
}

internal readonly record struct Spread(TimeSpan First, TimeSpan Median, TimeSpan P99, TimeSpan Last)
{
    public static Spread Of(IEnumerable<TimeSpan> times)
    {
        var sorted = times.Order().ToList();
        return new Spread(sorted[0], sorted[sorted.Count / 2], sorted[sorted.Count * 99 / 100], sorted[^1]);
    }
}
