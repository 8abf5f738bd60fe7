using Fleet.Linux.Interop;

namespace Fleet.Linux.Processes;

/// <summary>A descriptor that stands for one process for good, even after it ended (pidfd_open(2), Linux 5.3).</summary>
public sealed unsafe class Pidfd : IDisposable
{
    private readonly FileDescriptor _fd;

    public Pidfd(FileDescriptor fd) => _fd = fd;

    /// <exception cref="LinuxException">ESRCH: no such process.</exception>
    public static Pidfd Open(int pid) =>
        new(new FileDescriptor((int)LinuxException.Check(Libc.syscall(SyscallNumbers.pidfd_open, pid, 0, 0, 0), "pidfd_open")));

    /// <summary>Opens the process that was recorded; null when it has ended or the pid is another's by now.</summary>
    public static Pidfd? Open(ProcessIdentity identity)
    {
        try
        {
            var pidfd = Open(identity.Pid);
            // Checked after the open: from here on the descriptor cannot come to mean another process.
            if (identity.IsAlive() && !pidfd.HasExited())
            {
                return pidfd;
            }

            pidfd.Dispose();
            return null;
        }
        catch (LinuxException exception) when (exception.Errno == Errno.ESRCH)
        {
            return null;
        }
    }

    /// <summary>A copy of a descriptor of that process (pidfd_getfd(2), Linux 5.6); needs the right to ptrace it.</summary>
    /// <exception cref="LinuxException">EBADF: it has no such descriptor; EPERM: no right; ESRCH: it has ended.</exception>
    public FileDescriptor GetFd(int number) =>
        new((int)LinuxException.Check(Libc.syscall(SyscallNumbers.pidfd_getfd, _fd.Number, number, 0, 0), "pidfd_getfd"));

    /// <summary>Whether the process has ended (a zombie counts as ended).</summary>
    public bool HasExited()
    {
        var poll = new PollFd { Fd = _fd.Number, Events = PollFd.POLLIN };
        while (true)
        {
            var ready = Libc.poll(&poll, 1, 0);
            if (ready >= 0)
            {
                return ready > 0;
            }

            if (LinuxException.LastError != Errno.EINTR)
            {
                throw LinuxException.FromLastError("poll pidfd");
            }
        }
    }

    /// <summary>pidfd_send_signal(2): the signal reaches this process or nobody.</summary>
    /// <param name="signal">Native number, such as 15 (SIGTERM) or 9 (SIGKILL).</param>
    /// <exception cref="LinuxException">ESRCH: it has ended; EPERM: no right.</exception>
    public void SendSignal(int signal) =>
        LinuxException.Check(Libc.syscall(SyscallNumbers.pidfd_send_signal, _fd.Number, signal, 0, 0), "pidfd_send_signal");

    /// <summary>Blocks until the process has ended (true) or the signal is set (false).</summary>
    public bool WaitForExit(EventSignal signal)
    {
        var polls = stackalloc PollFd[2];
        polls[0] = new PollFd { Fd = _fd.Number, Events = PollFd.POLLIN };
        polls[1] = new PollFd { Fd = signal.Number, Events = PollFd.POLLIN };
        while (Libc.poll(polls, 2, -1) < 0)
        {
            if (LinuxException.LastError != Errno.EINTR)
            {
                throw LinuxException.FromLastError("poll pidfd");
            }
        }

        return polls[0].Revents != 0;
    }

    public void Dispose() => _fd.Dispose();
}
