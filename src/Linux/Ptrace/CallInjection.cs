using System.Diagnostics;
using System.Globalization;
using Fleet.Linux.Processes;

namespace Fleet.Linux.Ptrace;

/// <summary>
/// System calls made by a thread of another process: the thread is stopped, for each call its registers are set to make it and it runs to the
/// call's exit, and then they are put back. Runs on one OS thread from beginning to end; when that thread ends the kernel lets the target go.
/// </summary>
internal sealed class CallInjection(ProcessIdentity process, long number, IReadOnlyList<ulong[]> calls, TimeSpan stopTimeout)
{
    // A thread that waits in the kernel uninterruptibly cannot be stopped; another thread of the process makes the call as well.
    private const int MostThreads = 4;

    private long _began;

    /// <summary>What the last call returned: the negative error number where it failed, and no other was made after it.</summary>
    internal long Result { get; private set; }

    /// <summary>From the request to stop until the thread ran on.</summary>
    internal TimeSpan Stopped { get; private set; }

    /// <exception cref="LinuxException">Nothing was changed in the target: see <see cref="RemoteCall"/>.</exception>
    internal void Run()
    {
        var site = CallSite.Find(process.Pid);
        var thread = Stop();
        try
        {
            Call(thread, site);
        }
        finally
        {
            Stopped = Stopwatch.GetElapsedTime(_began);
        }
    }

    private TracedThread Stop()
    {
        foreach (var tid in Threads())
        {
            var thread = TracedThread.Seize(tid);
            if (!process.IsAlive())
            {
                // The pid is another process's by now. It was not stopped, and is let go with this thread.
                throw new LinuxException("PTRACE_SEIZE", Errno.ESRCH);
            }

            _began = Stopwatch.GetTimestamp();
            thread.Interrupt();
            if (HasStopped(thread, _began + (long)(stopTimeout.TotalSeconds * Stopwatch.Frequency)))
            {
                return thread;
            }
        }

        // Those that did not stop are let go with this thread: a request to stop that was not met yet goes with its tracer. A process
        // without threads is just ending.
        throw new LinuxException("PTRACE_INTERRUPT", _began == 0 ? Errno.ESRCH : Errno.ETIMEDOUT);
    }

    // The main thread first: in a VMM it seldom runs, and never the guest.
    private IEnumerable<int> Threads() => Directory.EnumerateDirectories(FormattableString.Invariant($"/proc/{process.Pid}/task"))
        .Select(path => int.Parse(Path.GetFileName(path.AsSpan()), CultureInfo.InvariantCulture))
        .OrderBy(tid => tid == process.Pid ? 0 : 1)
        .Take(MostThreads);

    private static bool HasStopped(TracedThread thread, long deadline)
    {
        while (thread.Wait(deadline) is { } stop)
        {
            if (stop.IsEvent)
            {
                return true;
            }

            // A signal came first: it is delivered as if nobody looked, and the stop comes after it.
            thread.Continue(stop.Signal);
        }

        return false;
    }

    private void Call(TracedThread thread, CallSite site)
    {
        StoppedThread stopped;
        try
        {
            stopped = new StoppedThread(thread, process.Pid, site);
        }
        catch
        {
            thread.Detach();
            throw;
        }

        try
        {
            foreach (var arguments in calls)
            {
                stopped.Prepare(number, arguments);
                stopped.RunToSystemCall();
                stopped.RunToSystemCall();
                Result = stopped.Result();
                if (Result < 0)
                {
                    break;
                }
            }
        }
        finally
        {
            stopped.Restore();
        }
    }
}
