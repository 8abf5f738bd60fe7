using Fleet.Linux.Interop;

namespace Fleet.Linux;

/// <summary>File changes that are on the disk when the call returns: fsync(2) of the file and, for a new name, of its folder.</summary>
public static class DurableFile
{
    private const string TemporarySuffix = ".tmp";

    /// <summary>Replaces the file whole: after a crash it has the old content or the new one, never a mixture. Mode 0600.</summary>
    public static void Write(string path, ReadOnlySpan<byte> content)
    {
        var temporary = path + TemporarySuffix;
        try
        {
            WriteTemporary(temporary, content);
        }
        catch
        {
            // On a full disk what was written of it would keep the room that others wait for.
            File.Delete(temporary);
            throw;
        }

        File.Move(temporary, path, overwrite: true);
        SyncFolder(Path.GetDirectoryName(path)!);
    }

    /// <summary>fsync of a file and its folder, for content that is there already and may not be on the disk yet.</summary>
    public static void Sync(string path)
    {
        using (var descriptor = FileDescriptor.OpenRead(path))
        {
            LinuxException.Check(Libc.fsync(descriptor.Number), $"fsync {path}");
        }

        SyncFolder(Path.GetDirectoryName(path)!);
    }

    /// <summary>Removes what writers that were killed left unfinished. Only where no other writer is at work in the folder.</summary>
    public static void RemoveUnfinished(string folder)
    {
        foreach (var path in Directory.EnumerateFiles(folder, "*" + TemporarySuffix))
        {
            File.Delete(path);
        }
    }

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

    public static void Delete(string path)
    {
        File.Delete(path);
        SyncFolder(Path.GetDirectoryName(path)!);
    }

    /// <summary>fsync of a folder: names made, moved or removed in it survive a power loss.</summary>
    public static void SyncFolder(string folder)
    {
        using var descriptor = FileDescriptor.OpenRead(folder);
        LinuxException.Check(Libc.fsync(descriptor.Number), $"fsync {folder}");
    }
}
