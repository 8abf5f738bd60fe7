using Fleet.Linux.Interop;

namespace Fleet.Linux.Userfaultfd;

/// <summary>
/// One thread that reads the events of every userfaultfd added to it. Handlers run on that thread, one at a time: they must
/// not touch guest memory through pointers (a fault there would wait for the very thread that resolves it) and must not block.
/// </summary>
public sealed unsafe class UffdEventLoop : IDisposable
{
    /// <param name="events">Read just now; valid during the call only.</param>
    public delegate void Handler(ReadOnlySpan<UffdEvent> events);

    private readonly Lock _lock = new();
    private readonly EventSignal _signal = new();
    private readonly Dictionary<UserfaultfdHandle, Handler> _handlers = [];
    private readonly Action<Exception> _onError;
    private readonly Thread _thread;
    private readonly ManualResetEventSlim _passed = new(initialState: false);
    private bool _stopped;

    /// <param name="onError">Told when a descriptor fails (it is then removed) or a handler throws (it goes on).</param>
    public UffdEventLoop(Action<Exception> onError)
    {
        _onError = onError;
        _thread = new Thread(Run) { IsBackground = true, Name = "uffd-events" };
        _thread.Start();
    }

    public void Add(UserfaultfdHandle handle, Handler handler)
    {
        lock (_lock)
        {
            _handlers.Add(handle, handler);
        }

        _signal.Set();
    }

    /// <summary>After the return the handler runs no more and the descriptor is not polled, so that it may be closed.</summary>
    public void Remove(UserfaultfdHandle handle)
    {
        lock (_lock)
        {
            if (!_handlers.Remove(handle) || Environment.CurrentManagedThreadId == _thread.ManagedThreadId || _stopped)
            {
                return;
            }

            _passed.Reset();
        }

        _signal.Set();
        _passed.Wait();
    }

    public void Dispose()
    {
        lock (_lock)
        {
            if (_stopped)
            {
                return;
            }

            _stopped = true;
        }

        _signal.Set();
        _thread.Join();
        _signal.Dispose();
        _passed.Dispose();
    }

    private void Run()
    {
        Span<UffdEvent> events = new UffdEvent[16];
        while (true)
        {
            KeyValuePair<UserfaultfdHandle, Handler>[] entries;
            lock (_lock)
            {
                _passed.Set();
                if (_stopped)
                {
                    return;
                }

                entries = [.. _handlers];
            }

            var polls = new PollFd[entries.Length + 1];
            polls[0] = new PollFd { Fd = _signal.Number, Events = PollFd.POLLIN };
            for (var i = 0; i < entries.Length; i++)
            {
                polls[i + 1] = new PollFd { Fd = entries[i].Key.Number, Events = PollFd.POLLIN };
            }

            Poll(polls);
            if (polls[0].Revents != 0)
            {
                _signal.Clear();
                continue;
            }

            for (var i = 0; i < entries.Length; i++)
            {
                Serve(entries[i].Key, entries[i].Value, polls[i + 1].Revents, events);
            }
        }
    }

    private static void Poll(PollFd[] polls)
    {
        fixed (PollFd* first = polls)
        {
            while (Libc.poll(first, (nuint)polls.Length, -1) < 0)
            {
                if (LinuxException.LastError != Errno.EINTR)
                {
                    throw LinuxException.FromLastError("poll");
                }
            }
        }
    }

    private void Serve(UserfaultfdHandle handle, Handler handler, short revents, Span<UffdEvent> events)
    {
        if (revents == 0)
        {
            return;
        }

        try
        {
            if ((revents & PollFd.POLLIN) == 0)
            {
                // POLLERR: never initialised, or blocking. POLLHUP, POLLNVAL: not pollable. It would spin.
                throw new LinuxException("poll userfaultfd", Errno.EBADF);
            }

            // Once: what is left is read in the next round, after the others had their turn.
            if (handle.ReadEvents(events) is > 0 and var count)
            {
                handler(events[..count]);
            }
        }
        catch (LinuxException exception) when (exception.Call is "poll userfaultfd" or "read userfaultfd")
        {
            Remove(handle);
            _onError(exception);
        }
#pragma warning disable CA1031 // A handler's defect must not end the thread that every other VM's faults wait for.
        catch (Exception exception)
#pragma warning restore CA1031
        {
            _onError(exception);
        }
    }
}
