namespace Fleet.HostAgent;

/// <summary>Loops that belong together and never end by themselves.</summary>
public static class Loops
{
    /// <summary>Runs them until one ends or fails: then the others are ended too. One that died unseen would be a part of the agent that is silently off.</summary>
    /// <exception cref="Exception">What the first of them failed with.</exception>
    public static async Task RunAsync(IReadOnlyList<Func<CancellationToken, Task>> loops, CancellationToken cancellationToken)
    {
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        List<Task> running = [.. loops.Select(loop => loop(ended.Token))];
        var first = await Task.WhenAny(running);
        await ended.CancelAsync();
        await Task.WhenAll(running).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await first;
    }
}
