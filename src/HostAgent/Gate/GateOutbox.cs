using Fleet.Contracts.Agents;

namespace Fleet.HostAgent.Gate;

/// <summary>
/// Acknowledgements and obstacles to be sent with the next reports. They hold the state of a moment: only the newest of each VM
/// waits, and none survives this process.
/// </summary>
public sealed class GateOutbox
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, GateAck> _acks = new(StringComparer.Ordinal);
    private readonly Dictionary<string, GateObstacle> _obstacles = new(StringComparer.Ordinal);
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public void Put(GateAck ack)
    {
        lock (_lock)
        {
            _acks[ack.Vm] = ack;
            Signal();
        }
    }

    public void Put(GateObstacle obstacle)
    {
        lock (_lock)
        {
            _obstacles[obstacle.Vm] = obstacle;
            Signal();
        }
    }

    /// <summary>Takes all that waits; what cannot be sent is simply made again.</summary>
    public (IReadOnlyList<GateAck> Acks, IReadOnlyList<GateObstacle> Obstacles) Take()
    {
        lock (_lock)
        {
            List<GateAck> acks = [.. _acks.Values];
            List<GateObstacle> obstacles = [.. _obstacles.Values];
            _acks.Clear();
            _obstacles.Clear();
            return (acks, obstacles);
        }
    }

    public Task WhenChangedAsync()
    {
        lock (_lock)
        {
            return _changed.Task;
        }
    }

    private void Signal()
    {
        var changed = _changed;
        _changed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        changed.TrySetResult();
    }
}
