namespace Fleet.HostAgent.Reconcile;

/// <summary>That the reconcile loop moves: what a service manager's watchdog is fed with.</summary>
public sealed class ReconcileProgress(TimeProvider time)
{
    private readonly TaskCompletionSource _looked = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private long _turns;
    private long _lastTurn = time.GetTimestamp();

    /// <summary>Steps that the loop has ended: a look at a VM, or finding that there is nothing to do.</summary>
    public long Turns => Interlocked.Read(ref _turns);

    /// <summary>When the last step ended, as <see cref="TimeProvider.GetTimestamp"/>.</summary>
    public long LastTurn => Interlocked.Read(ref _lastTurn);

    public void Turn()
    {
        Interlocked.Exchange(ref _lastTurn, time.GetTimestamp());
        Interlocked.Increment(ref _turns);
    }

    /// <summary>Completes when the VMMs of earlier lives are taken over and every VM was looked at once.</summary>
    public Task WhenLookedAsync() => _looked.Task;

    public void Looked() => _looked.TrySetResult();
}
