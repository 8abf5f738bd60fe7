using Fleet.Contracts.Agents;

namespace Fleet.HostAgent.Gate;

/// <summary>
/// Acknowledgements and obstacles to be sent with the next reports. They hold the state of a moment: only the newest of each VM
/// counts, and none survives this process. An acknowledgement that could not be sent is simply made again.
/// </summary>
public sealed class GateOutbox
{
    // As the control plane takes them.
    private const int LongestDetail = 500;

    private readonly Lock _lock = new();
    private readonly Dictionary<string, GateAck> _acks = new(StringComparer.Ordinal);
    private readonly Dictionary<string, GateObstacle> _obstacles = new(StringComparer.Ordinal);
    private bool _obstaclesChanged;
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public void Put(GateAck ack)
    {
        lock (_lock)
        {
            _acks[ack.Vm] = ack;
            Signal();
        }
    }

    /// <summary>The state that the VM's acknowledgement speaks of is no more.</summary>
    public void Drop(string vm)
    {
        lock (_lock)
        {
            _acks.Remove(vm);
        }
    }

    /// <summary>No acknowledgement that was made before counts.</summary>
    public void DropAll()
    {
        lock (_lock)
        {
            _acks.Clear();
        }
    }

    /// <summary>What is in the way for a VM now; null when nothing is.</summary>
    public void Set(string vm, GateObstacle? obstacle)
    {
        obstacle = obstacle is null ? null : obstacle with { Detail = Clean(obstacle.Detail) };
        lock (_lock)
        {
            if (_obstacles.GetValueOrDefault(vm) == obstacle)
            {
                return;
            }

            if (obstacle is null)
            {
                _obstacles.Remove(vm);
            }
            else
            {
                _obstacles[vm] = obstacle;
            }

            _obstaclesChanged = true;
            Signal();
        }
    }

    /// <summary>Takes the acknowledgements that wait, and all obstacles where they changed since the last time (null: they did not).</summary>
    public (IReadOnlyList<GateAck> Acks, IReadOnlyList<GateObstacle>? Obstacles) Take()
    {
        lock (_lock)
        {
            List<GateAck> acks = [.. _acks.Values];
            _acks.Clear();
            IReadOnlyList<GateObstacle>? obstacles = _obstaclesChanged ? [.. _obstacles.Values] : null;
            _obstaclesChanged = false;
            return (acks, obstacles);
        }
    }

    /// <summary>The request with the obstacles failed: they are told again.</summary>
    public void TellObstaclesAgain()
    {
        lock (_lock)
        {
            _obstaclesChanged = true;
            Signal();
        }
    }

    public Task WhenChangedAsync()
    {
        lock (_lock)
        {
            return _changed.Task;
        }
    }

    // It may hold what a VMM said. A request with one that the control plane does not take would be refused whole, reports and all.
    private static string? Clean(string? detail)
    {
        if (string.IsNullOrEmpty(detail))
        {
            return null;
        }

        var length = detail.Length <= LongestDetail ? detail.Length
            : char.IsHighSurrogate(detail[LongestDetail - 1]) ? LongestDetail - 1
            : LongestDetail;
        return string.Create(length, detail, static (clean, text) =>
        {
            for (var i = 0; i < clean.Length; i++)
            {
                clean[i] = char.IsControl(text[i]) ? ' ' : text[i];
            }
        });
    }

    private void Signal()
    {
        var changed = _changed;
        _changed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        changed.TrySetResult();
    }
}
