using Fleet.Linux.Interop;

namespace Fleet.Linux;

/// <summary>
/// File changes that are on the disk when the call returns: fsync(2) of the file and, for a new name, of its folder. Whatever a disk does, full,
/// read-only or failing, comes as an <see cref="IOException"/>.
/// </summary>
public static class DurableFile
{
    private const string TemporarySuffix = ".tmp";

    /// <summary>Replaces the file whole: after a crash it has the old content or the new one, never a mixture. Mode 0600.</summary>
    /// <exception cref="IOException">The file has its old content, unless only the last step failed, the fsync of its folder.</exception>
    public static void Write(string path, ReadOnlySpan<byte> content)
    {
        try
        {
            Replace(path, content);
        }
        catch (Exception exception) when (IsDisk(exception))
        {
            throw ToIo(exception);
        }
    }

    /// <summary>fsync of a file and its folder, for content that is there already and may not be on the disk yet.</summary>
    /// <exception cref="IOException">The disk is failing.</exception>
    public static void Sync(string path)
    {
        SyncOne(path);
        SyncOne(Path.GetDirectoryName(path)!);
    }

    /// <summary>Removes what writers that were killed left unfinished. Only where no other writer is at work in the folder.</summary>
    /// <exception cref="IOException">The disk is read-only or failing.</exception>
    public static void RemoveUnfinished(string folder)
    {
        try
        {
            foreach (var path in Directory.EnumerateFiles(folder, "*" + TemporarySuffix))
            {
                File.Delete(path);
            }
        }
        catch (Exception exception) when (IsDisk(exception))
        {
            throw ToIo(exception);
        }
    }

    /// <exception cref="IOException">The disk is read-only or failing.</exception>
    public static void Delete(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (Exception exception) when (IsDisk(exception))
        {
            throw ToIo(exception);
        }

        SyncFolder(Path.GetDirectoryName(path)!);
    }

    /// <summary>fsync of a folder: names made, moved or removed in it survive a power loss.</summary>
    /// <exception cref="IOException">The disk is failing.</exception>
    public static void SyncFolder(string folder) => SyncOne(folder);

    private static void Replace(string path, ReadOnlySpan<byte> content)
    {
        var temporary = path + TemporarySuffix;
        try
        {
            WriteTemporary(temporary, content);
            File.Move(temporary, path, overwrite: true);
        }
        catch
        {
            // On a full disk what was written of it would keep the room that others wait for.
            File.Delete(temporary);
            throw;
        }

        SyncFolder(Path.GetDirectoryName(path)!);
    }

    private static void SyncOne(string path)
    {
        try
        {
            using var descriptor = FileDescriptor.OpenRead(path);
            LinuxException.Check(Libc.fsync(descriptor.Number), $"fsync {path}");
        }
        catch (Exception exception) when (IsDisk(exception))
        {
            throw ToIo(exception);
        }
    }

    private static bool IsDisk(Exception exception) => exception is UnauthorizedAccessException or LinuxException;

    private static IOException ToIo(Exception exception) => new(exception.Message, exception);

    private static void WriteTemporary(string temporary, ReadOnlySpan<byte> content)
    {
        using var file = new FileStream(temporary, new FileStreamOptions
        {
            Mode = FileMode.Create,
            Access = FileAccess.Write,
            UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
        });
        file.Write(content);
        file.Flush(flushToDisk: true);
    }
}
