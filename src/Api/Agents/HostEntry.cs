using Fleet.Contracts.Agents;
using Fleet.Contracts.Hosts;

namespace Fleet.Api.Agents;

/// <summary>What the status board knows of one host. Server time decides: silence turns online into unknown, then offline.</summary>
public sealed class HostEntry
{
    private readonly Lock _lock = new();
    private IReadOnlyDictionary<string, VmStatus> _vms = new Dictionary<string, VmStatus>();
    private long? _incarnation;
    private long _seenAt;
    private bool _heard;
    private string _stateBefore = HostStates.Offline;
    private TimeSpan _interval;

    /// <summary>Set by every heartbeat and every commit that concerns the host.</summary>
    public Pulse Changed { get; } = new();

    public long? Incarnation
    {
        get
        {
            lock (_lock)
            {
                return _incarnation;
            }
        }
    }

    /// <summary>When it was heard last since this process started; null before.</summary>
    public long? HeardAt
    {
        get
        {
            lock (_lock)
            {
                return _heard ? _seenAt : null;
            }
        }
    }

    /// <summary>Takes what the database remembers. The clock starts anew: the API's own absence proves nothing about the host.</summary>
    public void Restore(long? incarnation, string state, long now, TimeSpan interval)
    {
        lock (_lock)
        {
            _incarnation = incarnation;
            _stateBefore = state;
            _seenAt = now;
            _interval = interval;
        }
    }

    /// <summary>A new agent process: nothing that an older one said holds any more.</summary>
    public void Claim(long incarnation, long now, TimeSpan interval)
    {
        lock (_lock)
        {
            if (_incarnation >= incarnation)
            {
                return;
            }

            _incarnation = incarnation;
            _vms = new Dictionary<string, VmStatus>();
            Hear(now, interval);
        }

        Changed.Set();
    }

    /// <summary>False when another incarnation holds the host.</summary>
    public bool Heartbeat(long incarnation, IReadOnlyDictionary<string, VmStatus> vms, long now, TimeSpan interval)
    {
        lock (_lock)
        {
            if (_incarnation != incarnation)
            {
                return false;
            }

            _vms = vms;
            Hear(now, interval);
        }

        Changed.Set();
        return true;
    }

    public string StateAt(long now)
    {
        lock (_lock)
        {
            var silent = now - _seenAt;
            if (!_heard && _stateBefore == HostStates.Offline)
            {
                return HostStates.Offline;
            }

            return silent >= 12 * _interval.TotalMilliseconds ? HostStates.Offline
                : silent >= 3 * _interval.TotalMilliseconds ? HostStates.Unknown
                : _heard ? HostStates.Online
                : _stateBefore;
        }
    }

    /// <summary>What the agent last said of a VM; null when it said nothing, or said it too long ago.</summary>
    public VmStatus? StatusOf(string vm, long now)
    {
        lock (_lock)
        {
            return _heard && now - _seenAt < 3 * _interval.TotalMilliseconds ? _vms.GetValueOrDefault(vm) : null;
        }
    }

    private void Hear(long now, TimeSpan interval)
    {
        _seenAt = now;
        _heard = true;
        _interval = interval;
    }
}
