using System.Threading.Channels;
using Fleet.Contracts;
using Fleet.Contracts.Handoff;

namespace Fleet.TinyVmm.Events;

/// <summary>
/// Events for the agent, kept until acknowledged. An event that was never sent takes up all others of the same page and kind
/// (its count grows); once sent, on any connection, it is fixed and sent again unchanged (I5). At most <see cref="Window"/>
/// sent events wait for their acknowledgement, so that what a hammering guest causes beyond them piles up in counts and
/// not in memory: the queue is bounded by the window plus one event for each page, kind and access. Nothing is dropped (I8).
/// </summary>
public sealed class EventQueue(TimeProvider time)
{
    public const int Window = 1024;

    private readonly Lock _gate = new();
    private readonly List<(EventKey Key, VmmEvent Event)> _events = [];
    private readonly Dictionary<EventKey, long> _unsent = [];
    private readonly Channel<bool> _changes = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private int _cursor;
    private long _highestSent;
    private long _last;

    /// <summary>Sequence of the newest event; 0 when there was none.</summary>
    public long LastSequence
    {
        get
        {
            lock (_gate)
            {
                return _last;
            }
        }
    }

    /// <summary>Events not yet acknowledged.</summary>
    public int Pending
    {
        get
        {
            lock (_gate)
            {
                return _events.Count;
            }
        }
    }

    public void AddMachineCheck(ulong guestPhysicalAddress, string access, int vcpu) =>
        Add(guestPhysicalAddress, new VmmEvent(VmmEvent.MceInjected, 0, HexAddress.Format(guestPhysicalAddress), null, null, access, vcpu, 1, time.GetUtcNow()));

    public void AddPoison(ulong guestPhysicalAddress, int shift, string errorClass) =>
        Add(guestPhysicalAddress, new VmmEvent(VmmEvent.Poison, 0, HexAddress.Format(guestPhysicalAddress), shift, errorClass, null, null, 1, time.GetUtcNow()));

    /// <summary>A new connection: everything unacknowledged is to be sent on it, in order.</summary>
    public void Rewind()
    {
        lock (_gate)
        {
            _cursor = 0;
        }
    }

    /// <summary>The next event to send on this connection, now fixed; false when there is none or the window is full.</summary>
    public bool TryNext(out VmmEvent next)
    {
        lock (_gate)
        {
            if (_cursor == _events.Count || _cursor == Window)
            {
                next = null!;
                return false;
            }

            (var key, next) = _events[_cursor++];
            if (next.Sequence > _highestSent)
            {
                _highestSent = next.Sequence;
                _unsent.Remove(key);
            }

            return true;
        }
    }

    /// <summary>The agent holds every event up to this one. What was never sent cannot be acknowledged and stays.</summary>
    public void Acknowledge(long sequence)
    {
        lock (_gate)
        {
            var count = _events.FindIndex(entry => entry.Event.Sequence > Math.Min(sequence, _highestSent));
            count = count < 0 ? _events.Count : count;
            _events.RemoveRange(0, count);
            _cursor = Math.Max(0, _cursor - count);
        }

        _changes.Writer.TryWrite(true);
    }

    /// <summary>Waits until there may be something to send.</summary>
    public async ValueTask WaitAsync(CancellationToken cancellationToken) => await _changes.Reader.ReadAsync(cancellationToken);

    private void Add(ulong guestPhysicalAddress, VmmEvent added)
    {
        lock (_gate)
        {
            var key = EventKey.Of(added, guestPhysicalAddress);
            if (_unsent.TryGetValue(key, out var sequence))
            {
                // Sequences have no gaps, so that the place in the list follows from them.
                var index = (int)(sequence - _events[0].Event.Sequence);
                var known = _events[index].Event;
                _events[index] = (key, known with { Count = known.Count + 1 });
                return;
            }

            _events.Add((key, added with { Sequence = ++_last }));
            _unsent.Add(key, _last);
        }

        _changes.Writer.TryWrite(true);
    }
}
