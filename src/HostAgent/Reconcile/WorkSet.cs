namespace Fleet.HostAgent.Reconcile;

/// <summary>VM ids that need a look; adding one twice is once, and nothing is lost between a take and the next add.</summary>
public sealed class WorkSet : IDisposable
{
    private readonly Lock _lock = new();
    private readonly SemaphoreSlim _signal = new(0, 1);
    private HashSet<string> _waiting = [];

    public void Add(string vm)
    {
        lock (_lock)
        {
            _waiting.Add(vm);
            Signal();
        }
    }

    /// <summary>Has whoever takes make a turn, with nothing to do.</summary>
    public void Poke()
    {
        lock (_lock)
        {
            Signal();
        }
    }

    /// <summary>Waits until something is there, or for a poke, and takes all of it.</summary>
    public async Task<IReadOnlyCollection<string>> TakeAsync(CancellationToken cancellationToken)
    {
        await _signal.WaitAsync(cancellationToken);
        lock (_lock)
        {
            return Interlocked.Exchange(ref _waiting, []);
        }
    }

    public void Dispose() => _signal.Dispose();

    private void Signal()
    {
        if (_signal.CurrentCount == 0)
        {
            _signal.Release();
        }
    }
}
