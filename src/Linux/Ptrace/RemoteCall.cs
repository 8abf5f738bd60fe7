using System.Runtime.ExceptionServices;
using Fleet.Linux.Interop;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Linux.Userfaultfd;

namespace Fleet.Linux.Ptrace;

/// <param name="Value">What the call returned.</param>
/// <param name="Stopped">How long the thread that made it was stopped.</param>
public readonly record struct RemoteCallResult(long Value, TimeSpan Stopped);

/// <summary>
/// System calls that another process makes without knowing it (ptrace(2)), for what a process can do to its own memory only. Its
/// thread is stopped for well under a millisecond; the system call that it was in is restarted, and no signal is lost.
/// </summary>
/// <exception cref="LinuxException">
/// EBUSY: another process traces it already; EPERM: no right; ESRCH: it has ended, or its pid is another's; ETIMEDOUT: it does not stop;
/// ENOTSUP: not this architecture, or a 32-bit process; or the call's own error.
/// </exception>
public static class RemoteCall
{
    private static readonly TimeSpan StopTimeout = TimeSpan.FromMilliseconds(500);

    // Once stopped, the target is done in microseconds. Whoever asked does not wait forever for a call that blocks in the kernel; the
    // thread that has to put the registers back does.
    private static readonly TimeSpan CallTimeout = TimeSpan.FromSeconds(10);

    /// <summary>userfaultfd(2), close-on-exec and non-blocking.</summary>
    /// <param name="userModeOnly">UFFD_USER_MODE_ONLY, for a process without CAP_SYS_PTRACE.</param>
    /// <returns>The number of the new descriptor in that process. It stays open there.</returns>
    public static RemoteCallResult Userfaultfd(ProcessIdentity process, bool userModeOnly) => Run(
        process, "userfaultfd in the VMM", MachineX64.SYS_userfaultfd,
        (ulong)(Constants.O_CLOEXEC | Constants.O_NONBLOCK | (userModeOnly ? UffdConstants.UFFD_USER_MODE_ONLY : 0)));

    /// <summary>
    /// madvise(2) MADV_DONTNEED for each range, all in one stop, up to the first that fails. process_madvise(2) does not offer it for another
    /// process.
    /// </summary>
    public static RemoteCallResult DontNeed(ProcessIdentity process, params IReadOnlyList<(ulong Address, ulong Bytes)> ranges) => Run(
        process, "madvise DONTNEED in the VMM", MachineX64.SYS_madvise,
        [.. ranges.Select(range => new[] { range.Address, range.Bytes, (ulong)MemoryAdvice.DontNeed })]);

    internal static RemoteCallResult Run(ProcessIdentity process, string name, long number, params ulong[] arguments) =>
        Run(process, name, number, [arguments]);

    private static RemoteCallResult Run(ProcessIdentity process, string name, long number, IReadOnlyList<ulong[]> calls)
    {
        if (!MachineX64.IsThisMachine)
        {
            throw new LinuxException(name, Errno.ENOTSUP);
        }

        var injection = new CallInjection(process, number, calls, StopTimeout);
        ExceptionDispatchInfo? failure = null;
        // Not a background thread: a process that ends by itself first lets it put the target's registers back.
        var thread = new Thread(() =>
        {
            try
            {
                injection.Run();
            }
            catch (IOException)
            {
                // /proc/PID is gone.
                failure = ExceptionDispatchInfo.Capture(new LinuxException(name, Errno.ESRCH));
            }
#pragma warning disable CA1031 // Thrown again where the call was asked for.
            catch (Exception exception)
#pragma warning restore CA1031
            {
                failure = ExceptionDispatchInfo.Capture(exception);
            }
        }, maxStackSize: 256 * 1024) { Name = "ptrace" };
        thread.Start();
        if (!thread.Join(CallTimeout))
        {
            throw new LinuxException(name, Errno.ETIMEDOUT);
        }

        failure?.Throw();
        return injection.Result >= 0
            ? new RemoteCallResult(injection.Result, injection.Stopped)
            : throw new LinuxException(name, (Errno)(-injection.Result));
    }
}
