using System.Diagnostics;

namespace Fleet.Api.Agents.Push;

/// <summary>An open stream's share of the hub: VMs of which it may not have sent the newest. Bounded by the host's VMs.</summary>
public sealed class Subscriber(string host, long incarnation)
{
    private readonly Lock _lock = new();
    private readonly Pulse _changed = new();
    private HashSet<string> _dirty = new(StringComparer.Ordinal);
    private long _dirtySince;

    public string Host { get; } = host;

    public long Incarnation { get; } = incarnation;

    /// <summary>Why the stream must end; null while it need not.</summary>
    public string? Ended { get; private set; }

    /// <summary>Completes on the next change after it was taken. Take it first, then <see cref="TakeDirty"/>.</summary>
    public Task Next => _changed.Next;

    public void MarkDirty(string vm)
    {
        lock (_lock)
        {
            if (_dirty.Count == 0)
            {
                _dirtySince = Stopwatch.GetTimestamp();
            }

            _dirty.Add(vm);
        }

        _changed.Set();
    }

    /// <summary>When the oldest of the VMs last taken became dirty, as <see cref="Stopwatch.GetTimestamp"/>; null when none was.</summary>
    public long? TakenSince { get; private set; }

    public IReadOnlyCollection<string> TakeDirty()
    {
        lock (_lock)
        {
            TakenSince = _dirty.Count == 0 ? null : _dirtySince;
            if (_dirty.Count == 0)
            {
                return [];
            }

            var taken = _dirty;
            _dirty = new HashSet<string>(StringComparer.Ordinal);
            return taken;
        }
    }

    public void End(string why)
    {
        Ended ??= why;
        _changed.Set();
    }
}
