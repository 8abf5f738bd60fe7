using System.Globalization;
using System.Text;
using Fleet.Linux.Interop;
using Fleet.Linux.Processes;

namespace Fleet.Linux.Tracing;

/// <summary>
/// The kernel's tracefs (Documentation/trace/ftrace.rst), as a mount of this process's own: it is in no folder, nobody else sees it, and it ends
/// with its descriptor however the process ends (fsopen(2), Linux 5.2). Instances made through it are the kernel's, and stay.
/// </summary>
public sealed unsafe class TraceFs : IDisposable
{
    private static int _made;

    private readonly FileDescriptor _mount;

    private TraceFs(FileDescriptor mount) => _mount = mount;

    private string Root => FormattableString.Invariant($"/proc/self/fd/{_mount.Number}");

    private string Instances => Path.Combine(Root, "instances");

    /// <exception cref="LinuxException">ENODEV: the kernel has no tracefs; EPERM: not root, or locked down; ENOSYS: older than 5.2.</exception>
    public static TraceFs Open()
    {
        using var context = new FileDescriptor(FileSystem("tracefs"));
        LinuxException.Check(Libc.syscall(SyscallNumbers.fsconfig, context.Number, Constants.FSCONFIG_CMD_CREATE, 0, 0, 0), "fsconfig tracefs");
        var mount = LinuxException.Check(Libc.syscall(SyscallNumbers.fsmount, context.Number, Constants.FSMOUNT_CLOEXEC, 0, 0), "fsmount tracefs");
        var fs = new TraceFs(new FileDescriptor((int)mount));
        if (Directory.Exists(fs.Instances))
        {
            return fs;
        }

        fs.Dispose();
        throw new LinuxException("tracefs instances", Errno.ENOENT);
    }

    public bool HasEvent(TraceEvent traceEvent) => Directory.Exists(Path.Combine(Root, "events", traceEvent.System, traceEvent.Name));

    /// <summary>A new instance: a ring buffer with events of its own, beside those of whoever else traces.</summary>
    /// <param name="owner">Such as <c>fleet-host-a</c>.</param>
    /// <param name="purpose">Letters only.</param>
    /// <returns>Named <c>OWNER-PID-STARTTIME-PURPOSE</c> with a number behind it, so that what a killed process left can be told.</returns>
    /// <exception cref="LinuxException">mkdir failed.</exception>
    public TraceInstance Create(string owner, string purpose)
    {
        var self = ProcessIdentity.Of(Environment.ProcessId)!;
        return CreateNamed(FormattableString.Invariant($"{owner}-{self.Pid}-{self.StartTime}-{purpose}{Interlocked.Increment(ref _made)}"));
    }

    internal TraceInstance CreateNamed(string name)
    {
        var folder = Path.Combine(Instances, name);
        LinuxException.Check(Libc.mkdir(folder, 0x1c0), $"mkdir {name}");
        return new TraceInstance(folder, name);
    }

    /// <summary>Removes the instances of the owner whose process is gone.</summary>
    /// <returns>Their names.</returns>
    public IReadOnlyList<string> RemoveLeftovers(string owner)
    {
        var left = Directory.EnumerateDirectories(Instances).Select(path => Path.GetFileName(path)!).Where(name => IsLeftover(name, owner)).ToList();
        foreach (var name in left)
        {
            using var instance = new TraceInstance(Path.Combine(Instances, name), name);
        }

        return left;
    }

    /// <summary>Names of the instances that there are.</summary>
    public IReadOnlyList<string> InstanceNames() => [.. Directory.EnumerateDirectories(Instances).Select(path => Path.GetFileName(path)!)];

    public void Dispose() => _mount.Dispose();

    private static bool IsLeftover(string name, string owner)
    {
        var parts = name.Split('-');
        return parts.Length >= 4 && string.Join('-', parts[..^3]) == owner
            && int.TryParse(parts[^3], NumberStyles.None, CultureInfo.InvariantCulture, out var pid)
            && long.TryParse(parts[^2], NumberStyles.None, CultureInfo.InvariantCulture, out var startTime)
            && !new ProcessIdentity(KernelInfo.BootId, pid, startTime).IsAlive();
    }

    private static int FileSystem(string type)
    {
        fixed (byte* name = Encoding.ASCII.GetBytes(type + '\0'))
        {
            return (int)LinuxException.Check(Libc.syscall(SyscallNumbers.fsopen, (nint)name, Constants.FSOPEN_CLOEXEC, 0, 0), $"fsopen {type}");
        }
    }
}

/// <summary>A tracepoint, such as system <c>kvm</c>, name <c>kvm_page_fault</c>.</summary>
public sealed record TraceEvent(string System, string Name)
{
    public override string ToString() => $"{System}:{Name}";
}
