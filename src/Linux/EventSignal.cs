using Fleet.Linux.Interop;

namespace Fleet.Linux;

/// <summary>An eventfd(2) that wakes a thread blocked in poll(2).</summary>
public sealed unsafe class EventSignal : IDisposable
{
    private readonly FileDescriptor _fd =
        new(LinuxException.Check(Libc.eventfd(0, Constants.EFD_CLOEXEC | Constants.O_NONBLOCK), "eventfd"));

    internal int Number => _fd.Number;

    public void Set()
    {
        ulong one = 1;
        // EAGAIN means the counter is at its limit: the signal is set already.
        _ = Libc.write(Number, &one, sizeof(ulong));
    }

    public void Clear()
    {
        ulong count;
        _ = Libc.read(Number, &count, sizeof(ulong));
    }

    /// <summary>Blocks until it is set (true), or for that long (false).</summary>
    public bool Wait(TimeSpan longest)
    {
        var poll = new PollFd { Fd = Number, Events = PollFd.POLLIN };
        return Libc.poll(&poll, 1, (int)longest.TotalMilliseconds) > 0;
    }

    public void Dispose() => _fd.Dispose();
}
