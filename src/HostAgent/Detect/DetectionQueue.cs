using Fleet.Linux.Tracing;

namespace Fleet.HostAgent.Detect;

/// <summary>What detection has to look at: VMs, and errors that the kernel told of. A VM added twice is looked at once.</summary>
public sealed class DetectionQueue : IDisposable
{
    private readonly Lock _lock = new();
    private readonly SemaphoreSlim _signal = new(0, 1);
    private HashSet<string> _vms = new(StringComparer.Ordinal);
    private List<MemoryFailureEvent> _errors = [];
    private bool _all;

    public void Add(string vm) => Change(() => _vms.Add(vm));

    /// <summary>Every VM: events of the kernel were lost, or it is time.</summary>
    public void AddAll() => Change(() => _all = true);

    public void Add(IEnumerable<MemoryFailureEvent> errors) => Change(() => _errors.AddRange(errors));

    /// <summary>Waits until something is there and takes all of it.</summary>
    public async Task<DetectionWork> TakeAsync(CancellationToken cancellationToken)
    {
        await _signal.WaitAsync(cancellationToken);
        lock (_lock)
        {
            var work = new DetectionWork(_vms, _errors, _all);
            (_vms, _errors, _all) = (new HashSet<string>(StringComparer.Ordinal), [], false);
            return work;
        }
    }

    public void Dispose() => _signal.Dispose();

    private void Change(Action change)
    {
        lock (_lock)
        {
            change();
            if (_signal.CurrentCount == 0)
            {
                _signal.Release();
            }
        }
    }
}

/// <param name="Everything">All VMs, whether named or not.</param>
public sealed record DetectionWork(IReadOnlySet<string> Vms, IReadOnlyList<MemoryFailureEvent> Errors, bool Everything)
{
    /// <summary>An error may be anybody's.</summary>
    public bool Concerns(string vm) => Everything || Errors.Count > 0 || Vms.Contains(vm);
}
