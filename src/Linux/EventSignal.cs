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

    public void Dispose() => _fd.Dispose();
}
