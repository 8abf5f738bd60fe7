namespace Fleet.Api.Agents.Push;

public static class Jitter
{
    /// <summary>Within a fifth of the given time, so that ten thousand clients do not act in step.</summary>
    public static TimeSpan Of(TimeSpan time) => time * (0.8 + (Random.Shared.NextDouble() * 0.4));
}
