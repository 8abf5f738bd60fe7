namespace Fleet.TinyVmm.Migration;

/// <summary>
/// Accesses to guest memory off the caller's thread, each with a limit: one that meets a trapped page blocks in the kernel until the page is
/// resolved, and cannot be called back. Until then nothing else is begun.
/// </summary>
internal sealed class BlockingAccess(TimeSpan limit, TimeProvider time)
{
    private Task _last = Task.CompletedTask;

    /// <summary>An access is blocked in the kernel: memory and userfaultfd must stay.</summary>
    public bool IsBlocked => !_last.IsCompleted;

    /// <param name="access">After a timeout it may still be under way: what it uses must not be used again.</param>
    /// <exception cref="StreamException">It takes too long, or one before it still does.</exception>
    public async Task<T> RunAsync<T>(Func<T> access, CancellationToken cancellationToken)
    {
        if (IsBlocked)
        {
            throw new StreamException(StreamException.TimedOut, "an access to a trapped page is still blocked");
        }

        var running = Task.Run(access, CancellationToken.None);
        _last = running;
        try
        {
            return await running.WaitAsync(limit, time, cancellationToken);
        }
        catch (TimeoutException)
        {
            throw new StreamException(StreamException.TimedOut, $"an access to guest memory takes longer than {limit}: it may be blocked on a trapped page");
        }
    }
}
