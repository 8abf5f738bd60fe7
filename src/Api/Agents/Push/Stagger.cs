namespace Fleet.Api.Agents.Push;

/// <summary>Over how long many clients are to come back, so that they do not all come at once.</summary>
public static class Stagger
{
    private static readonly TimeSpan Least = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Most = TimeSpan.FromMinutes(2);

    /// <summary>When all clients are to be back.</summary>
    public static TimeSpan Window(int clients, int perSecond)
    {
        var needed = Least + TimeSpan.FromSeconds(Math.Max(1, (double)clients / perSecond));
        return needed < Most ? needed : Most;
    }

    /// <summary>One client's pause: evenly from a second, which a restart takes anyway, up to nine tenths of the window; coming back takes time as well.</summary>
    public static TimeSpan Draw(TimeSpan window) => Least + ((window * 0.9 > Least ? (window * 0.9) - Least : TimeSpan.Zero) * Random.Shared.NextDouble());
}
