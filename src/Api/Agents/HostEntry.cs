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
    private (long? Incarnation, long Total) _unreportedHits;
    private bool _heard;
    private bool _expired;
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

    /// <summary>Takes in what an agent process has counted since it started.</summary>
    /// <returns>By how much that is more than it said before.</returns>
    public long CountUnreportedHits(long incarnation, long total)
    {
        lock (_lock)
        {
            var before = _unreportedHits.Incarnation == incarnation ? _unreportedHits.Total : 0;
            _unreportedHits = (incarnation, Math.Max(before, total));
            return Math.Max(0, total - before);
        }
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

    /// <param name="notBefore">Nobody expires before this.</param>
    /// <param name="mayBeHeld">Whether it counts as online until <see cref="Expire"/> was called.</param>
    public string StateAt(long now, long notBefore, bool mayBeHeld)
    {
        lock (_lock)
        {
            if (!_heard && _stateBefore == HostStates.Offline)
            {
                return HostStates.Offline;
            }

            return !IsSilent(now, notBefore) ? IsOnlineUntilSilent ? HostStates.Online : _stateBefore
                : mayBeHeld && IsOnlineUntilSilent && !_expired ? HostStates.Online
                : now - _seenAt >= 12 * _interval.TotalMilliseconds ? HostStates.Offline
                : HostStates.Unknown;
        }
    }

    /// <summary>Whether it is online, or would be but for its silence, which <see cref="Expire"/> has not been called for yet.</summary>
    public (bool IsOnline, bool IsDue) ExpiryAt(long now, long notBefore)
    {
        lock (_lock)
        {
            var isSilent = IsSilent(now, notBefore);
            return (IsOnlineUntilSilent && !(isSilent && _expired), IsOnlineUntilSilent && isSilent && !_expired);
        }
    }

    /// <summary>It is online no more, unless it was heard in the meantime.</summary>
    public void Expire(long now, long notBefore)
    {
        lock (_lock)
        {
            _expired = IsSilent(now, notBefore);
        }
    }

    private bool IsOnlineUntilSilent => _heard || _stateBefore == HostStates.Online;

    /// <summary>
    /// What the agent last said of a VM; null when it said nothing, or said it too long ago. Evidence has an age of its own: neither the
    /// grace after a start nor the brake on mass expiry makes it last longer.
    /// </summary>
    public VmStatus? StatusOf(string vm, long now)
    {
        lock (_lock)
        {
            return _heard && now - _seenAt < 3 * _interval.TotalMilliseconds ? _vms.GetValueOrDefault(vm) : null;
        }
    }

    private bool IsSilent(long now, long notBefore) => now >= notBefore && now - _seenAt >= 3 * _interval.TotalMilliseconds;

    private void Hear(long now, TimeSpan interval)
    {
        _seenAt = now;
        _heard = true;
        _expired = false;
        _interval = interval;
    }
}
