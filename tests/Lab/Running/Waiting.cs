namespace Fleet.Lab.Tests.Running;

/// <summary>Waiting for what other machines bring about. Emulated ones are slow.</summary>
internal static class Waiting
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(120);

    /// <param name="patience">How long; two minutes when nothing is said.</param>
    /// <exception cref="TimeoutException">It did not come about in that time.</exception>
    public static async Task UntilAsync(
        Func<Task<bool>> condition, string what, CancellationToken cancellationToken, Func<Task<string>>? state = null, TimeSpan? patience = null)
    {
        using var timeout = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        timeout.CancelAfter(patience ?? Patience);
        while (!await condition())
        {
            if (timeout.IsCancellationRequested)
            {
                cancellationToken.ThrowIfCancellationRequested();
                throw new TimeoutException($"waited {patience ?? Patience} for {what}{(state is null ? null : $"\n{await state()}")}");
            }

            await Task.Delay(100, cancellationToken); // allowed: polling another machine, with a deadline
        }
    }
}
