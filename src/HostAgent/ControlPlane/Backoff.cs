namespace Fleet.HostAgent.ControlPlane;

/// <summary>Jittered exponential pauses between tries: half to the whole of a step that doubles, so that a fleet does not come back in step.</summary>
public sealed class Backoff
{
    private static readonly TimeSpan First = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan Most = TimeSpan.FromSeconds(5);

    private TimeSpan _step = First;

    public void Reset() => _step = First;

    public TimeSpan Next()
    {
        var pause = _step * (0.5 + (Random.Shared.NextDouble() / 2));
        _step = _step * 2 < Most ? _step * 2 : Most;
        return pause;
    }

    /// <summary>Longer where the control plane asked for it. A server that asks for patience knows why: whoever comes sooner makes it worse.</summary>
    public static TimeSpan AtLeast(TimeSpan pause, Exception failure) =>
        failure is ControlPlaneException { RetryAfter: var asked } && asked > pause ? asked : pause;
}
