using Fleet.Linux.Interop;
using Microsoft.Win32.SafeHandles;

namespace Fleet.Linux;

/// <summary>An owned file descriptor of any kind, closed once.</summary>
public sealed class FileDescriptor : SafeHandleMinusOneIsInvalid
{
    public FileDescriptor(int fd)
        : base(ownsHandle: true) => SetHandle(fd);

    /// <summary>The number; valid while this object is neither disposed nor collected.</summary>
    /// <exception cref="ObjectDisposedException">It was closed: the number may be another file's by now.</exception>
    public int Number
    {
        get
        {
            ObjectDisposedException.ThrowIf(IsClosed, this);
            return (int)handle;
        }
    }

    /// <summary>What /proc/self/fd says it is, such as <c>anon_inode:[userfaultfd]</c> or <c>/memfd:name (deleted)</c>; null when closed.</summary>
    public string? LinkTarget => new FileInfo(FormattableString.Invariant($"/proc/self/fd/{Number}")).LinkTarget;

    /// <summary>A path to the very file, for calls that take one; valid while this object lives.</summary>
    public string ProcPath => FormattableString.Invariant($"/proc/self/fd/{Number}");

    /// <summary>Opens a path read-only, close-on-exec.</summary>
    /// <exception cref="LinuxException">open(2) failed.</exception>
    public static FileDescriptor OpenRead(string path) =>
        new(LinuxException.Check(Libc.open(path, Constants.O_RDONLY | Constants.O_CLOEXEC, 0), $"open {path}"));

    /// <summary>Opens an existing path write-only, close-on-exec.</summary>
    /// <exception cref="LinuxException">open(2) failed.</exception>
    internal static FileDescriptor OpenWrite(string path) =>
        new(LinuxException.Check(Libc.open(path, Constants.O_WRONLY | Constants.O_CLOEXEC, 0), $"open {path}"));

    protected override bool ReleaseHandle() => Libc.close((int)handle) == 0;
}
