namespace Fleet.TinyVmm.Handoff;

/// <summary>Doubling delays with jitter, from 50 ms up to 2 s, for a peer that is away.</summary>
public sealed class Backoff(Random random)
{
    public static readonly TimeSpan First = TimeSpan.FromMilliseconds(50);
    public static readonly TimeSpan Longest = TimeSpan.FromSeconds(2);

    private TimeSpan _next = First;

    /// <summary>The next delay: between half and all of the step, so that many VMMs do not knock together.</summary>
    public TimeSpan Next()
    {
        var step = _next;
        _next = step * 2 > Longest ? Longest : step * 2;
        return step * (0.5 + (random.NextDouble() / 2));
    }

    public void Reset() => _next = First;
}
