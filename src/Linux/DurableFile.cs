using Fleet.Linux.Interop;

namespace Fleet.Linux;

/// <summary>File changes that are on the disk when the call returns: fsync(2) of the file and, for a new name, of its folder.</summary>
public static class DurableFile
{
    /// <summary>Replaces the file whole: after a crash it has the old content or the new one, never a mixture. Mode 0600.</summary>
    public static void Write(string path, ReadOnlySpan<byte> content)
    {
        var temporary = path + ".tmp";
        using (var file = new FileStream(temporary, new FileStreamOptions
        {
            Mode = FileMode.Create,
            Access = FileAccess.Write,
            UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
        }))
        {
            file.Write(content);
            file.Flush(flushToDisk: true);
        }

        File.Move(temporary, path, overwrite: true);
        SyncFolder(Path.GetDirectoryName(path)!);
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
