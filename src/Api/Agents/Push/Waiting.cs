namespace Fleet.Api.Agents.Push;

public static class Waiting
{
    /// <summary>Waits for news, or until there is something else to do.</summary>
    public static async Task ForAsync(Task news, TimeSpan atMost, TimeProvider time, CancellationToken cancellationToken)
    {
        try
        {
            await news.WaitAsync(atMost > TimeSpan.Zero ? atMost : TimeSpan.Zero, time, cancellationToken);
        }
        catch (TimeoutException)
        {
            // Time for a bookmark.
        }
    }
}
