using System.Runtime.InteropServices;
using Fleet.Linux.Interop;

namespace Fleet.Linux;

/// <summary>
/// A folder that is held by a descriptor (O_PATH): names are looked up in this very folder, whatever its path leads to meanwhile, and never
/// through a link or out of it (openat2(2), Linux 5.6).
/// </summary>
public sealed unsafe class FolderHandle : IDisposable
{
    private readonly FileDescriptor _fd;

    private FolderHandle(FileDescriptor fd) => _fd = fd;

    /// <summary>Where it is now, without links or dots.</summary>
    public string? Location => _fd.LinkTarget;

    /// <summary>Opens a folder by its path; links in it are followed.</summary>
    /// <exception cref="LinuxException">open(2) failed; ENOTDIR: it is no folder.</exception>
    public static FolderHandle Open(string path) =>
        new(new FileDescriptor(LinuxException.Check(Libc.open(path, Constants.O_PATH | Constants.O_DIRECTORY | Constants.O_CLOEXEC, 0), $"open {path}")));

    /// <summary>A folder somewhere below this one.</summary>
    /// <param name="path">Relative; empty for this folder itself.</param>
    /// <exception cref="LinuxException">ELOOP: a link is on the way; EXDEV: the way leaves this folder; ENOENT, ENOTDIR.</exception>
    public FolderHandle OpenFolder(string path) =>
        new(Resolve(path.Length == 0 ? "." : path, Constants.O_PATH | Constants.O_DIRECTORY | Constants.O_CLOEXEC));

    /// <summary>What has this name here now. Links are not followed.</summary>
    /// <exception cref="LinuxException">statx(2) failed, but for a name that nothing has.</exception>
    public FileKind KindOf(string name)
    {
        Statx result;
        if (Libc.statx(_fd.Number, name, Constants.AT_SYMLINK_NOFOLLOW, Constants.STATX_TYPE, &result) == 0)
        {
            return (FileKind)(result.Mode & Constants.S_IFMT);
        }

        return LinuxException.LastError == Errno.ENOENT ? FileKind.None : throw LinuxException.FromLastError("statx");
    }

    /// <summary>Opens a regular file of this folder for reading; the kind is that of the very file that is opened.</summary>
    /// <exception cref="LinuxException">ELOOP: it is a link; EXDEV: the name leads elsewhere.</exception>
    /// <exception cref="InvalidDataException">It is a folder, FIFO, device or socket. It was not opened as such: nothing waits, and no device notices.</exception>
    public FileDescriptor OpenRegular(string name)
    {
        using var found = Resolve(name, Constants.O_PATH | Constants.O_CLOEXEC);
        var kind = KindOf(found);
        return kind == FileKind.Regular
            ? FileDescriptor.OpenRead(found.ProcPath)
            : throw new InvalidDataException($"{Location}/{name} is not a regular file but {kind}");
    }

    /// <summary>A Unix socket of this folder, to connect to by <see cref="FileDescriptor.ProcPath"/>: this very one, whatever has its name by then.</summary>
    /// <exception cref="LinuxException">ENOENT; ELOOP: it is a link; EXDEV: the name leads elsewhere.</exception>
    /// <exception cref="InvalidDataException">It is something else.</exception>
    public FileDescriptor OpenSocket(string name)
    {
        var found = Resolve(name, Constants.O_PATH | Constants.O_CLOEXEC);
        try
        {
            var kind = KindOf(found);
            return kind == FileKind.Socket ? found : throw new InvalidDataException($"{Location}/{name} is not a socket but {kind}");
        }
        catch
        {
            found.Dispose();
            throw;
        }
    }

    /// <summary>A path to this name that the kernel resolves from the descriptor; valid while this object lives. Short enough for a Unix socket.</summary>
    public string PathOf(string name) => FormattableString.Invariant($"/proc/self/fd/{_fd.Number}/{name}");

    public void Dispose() => _fd.Dispose();

    private static FileKind KindOf(FileDescriptor found)
    {
        Statx result;
        LinuxException.Check(Libc.statx(found.Number, string.Empty, Constants.AT_EMPTY_PATH, Constants.STATX_TYPE, &result), "statx");
        return (FileKind)(result.Mode & Constants.S_IFMT);
    }

    private FileDescriptor Resolve(string path, int flags)
    {
        var how = new OpenHow
        {
            Flags = (ulong)flags,
            Resolve = Constants.RESOLVE_BENEATH | Constants.RESOLVE_NO_SYMLINKS | Constants.RESOLVE_NO_MAGICLINKS,
        };
        var text = Marshal.StringToCoTaskMemUTF8(path);
        try
        {
            return new FileDescriptor((int)LinuxException.Check(
                Libc.syscall(SyscallNumbers.openat2, _fd.Number, text, (nint)(&how), sizeof(OpenHow)), $"openat2 {path}"));
        }
        finally
        {
            Marshal.FreeCoTaskMem(text);
        }
    }
}
