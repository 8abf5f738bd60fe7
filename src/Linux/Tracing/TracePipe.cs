using System.Text;
using Fleet.Linux.Interop;

namespace Fleet.Linux.Tracing;

/// <summary>The text of an instance's events, each read once (trace_pipe). It never blocks in a read.</summary>
public sealed unsafe class TracePipe : IDisposable
{
    private const int BufferBytes = 16 * 1024;

    private readonly FileDescriptor _fd;
    private readonly byte[] _buffer = new byte[BufferBytes];
    private readonly StringBuilder _partial = new();

    internal TracePipe(string path) =>
        _fd = new FileDescriptor(LinuxException.Check(Libc.open(path, Constants.O_RDONLY | Constants.O_NONBLOCK | Constants.O_CLOEXEC, 0), "open trace_pipe"));

    /// <summary>Blocks until there is an event (true) or the signal is set (false).</summary>
    public bool Wait(EventSignal signal)
    {
        var polls = stackalloc PollFd[2];
        polls[0] = new PollFd { Fd = _fd.Number, Events = PollFd.POLLIN };
        polls[1] = new PollFd { Fd = signal.Number, Events = PollFd.POLLIN };
        while (Libc.poll(polls, 2, -1) < 0)
        {
            if (LinuxException.LastError != Errno.EINTR)
            {
                throw LinuxException.FromLastError("poll trace_pipe");
            }
        }

        return polls[1].Revents == 0;
    }

    /// <summary>Takes the whole lines that are there, up to a number of reads; empty when there are none.</summary>
    public IReadOnlyList<string> ReadLines(int maximumReads = 64)
    {
        var lines = new List<string>();
        for (var reads = 0; reads < maximumReads && Read() is > 0 and var count; reads++)
        {
            var text = Encoding.ASCII.GetString(_buffer, 0, count);
            var start = 0;
            for (int end; (end = text.IndexOf('\n', start)) >= 0; start = end + 1)
            {
                lines.Add(_partial.Append(text, start, end - start).ToString());
                _partial.Clear();
            }

            _partial.Append(text, start, text.Length - start);
        }

        return lines;
    }

    public void Dispose() => _fd.Dispose();

    private int Read()
    {
        fixed (byte* bytes = _buffer)
        {
            var count = Libc.read(_fd.Number, bytes, BufferBytes);
            return count >= 0 ? (int)count
                : LinuxException.LastError is Errno.EAGAIN or Errno.EINTR ? 0
                : throw LinuxException.FromLastError("read trace_pipe");
        }
    }
}
