using Fleet.Contracts.Handoff;
using Fleet.TinyVmm.Events;

namespace Fleet.TinyVmm.Tests;

/// <summary>I5: an event's identity is fixed once sent. I8: no access vanishes without a trace.</summary>
[Trait("Invariant", "I5, I8")]
public sealed class EventQueueTests
{
    private readonly EventQueue _queue = new(TimeProvider.System);

    [Fact]
    public void Add_SamePageAndAccessUnsent_IsOneEventWithACount()
    {
        _queue.AddMachineCheck(0x1000, "read", 0);
        _queue.AddMachineCheck(0x1ffc, "read", 0);
        _queue.AddMachineCheck(0x1000, "write", 0);
        _queue.AddMachineCheck(0x2000, "read", 0);
        _queue.AddPoison(0x1000, 12, "srar");
        _queue.AddPoison(0x1000, 12, "srar");

        Assert.Equal([(1, 2L), (2, 1L), (3, 1L), (4, 2L)], Drain().Select(e => ((int)e.Sequence, e.Count)));
    }

    [Fact]
    public void Add_SamePageAlreadySent_IsANewEvent()
    {
        _queue.AddMachineCheck(0x1000, "read", 0);
        var first = Assert.Single(Drain());
        _queue.AddMachineCheck(0x1000, "read", 0);

        Assert.Equal(2, Assert.Single(Drain()).Sequence);
        _queue.Rewind();
        Assert.Equal(first, Drain()[0]);
    }

    [Fact]
    public void Rewind_Unacknowledged_AreSentAgainUnchangedAndInOrder()
    {
        _queue.AddMachineCheck(0x1000, "read", 0);
        _queue.AddMachineCheck(0x2000, "read", 0);
        _queue.AddMachineCheck(0x3000, "read", 0);
        var sent = Drain();

        _queue.Acknowledge(1);
        _queue.Rewind();

        Assert.Equal(sent.Skip(1), Drain());
        Assert.Equal(2, _queue.Pending);
    }

    [Fact]
    public void Acknowledge_MoreThanWasSent_KeepsTheUnsent()
    {
        _queue.AddMachineCheck(0x1000, "read", 0);
        Assert.True(_queue.TryNext(out _));
        _queue.AddMachineCheck(0x2000, "read", 0);

        _queue.Acknowledge(long.MaxValue);

        Assert.Equal(2, Assert.Single(Drain()).Sequence);
        _queue.Acknowledge(-5);
        Assert.Equal(1, _queue.Pending);
    }

    [Fact]
    public void TryNext_WindowFull_CoalescesUntilAcknowledgedAndLosesNothing()
    {
        long delivered = 0;
        const int Accesses = 100_000;
        for (var i = 0; i < Accesses; i++)
        {
            _queue.AddMachineCheck((ulong)(i % 3000) * 4096, "read", 0);
            delivered += Drain().Sum(e => e.Count);
        }

        // Sent: the window. Unsent: one for each page at most.
        Assert.Equal(EventQueue.Window, delivered);
        Assert.InRange(_queue.Pending, EventQueue.Window + 1, EventQueue.Window + 3000);

        while (_queue.Pending > 0)
        {
            _queue.Acknowledge(_queue.LastSequence);
            delivered += Drain().Sum(e => e.Count);
        }

        Assert.Equal(Accesses, delivered);
    }

    private List<VmmEvent> Drain()
    {
        var drained = new List<VmmEvent>();
        while (_queue.TryNext(out var next))
        {
            drained.Add(next);
        }

        return drained;
    }
}
