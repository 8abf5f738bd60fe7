using System.Text;

namespace Fleet.Data.Storage;

/// <summary>Small files that must survive power loss: written beside, synced, renamed into place.</summary>
public static class DurableFile
{
    /// <param name="path">Where it goes; an existing file is replaced.</param>
    /// <param name="text">Whole content, UTF-8.</param>
    /// <param name="mode">Access rights from the first byte on; 0600 by default.</param>
    public static void Write(string path, string text, UnixFileMode mode = UnixFileMode.UserRead | UnixFileMode.UserWrite)
    {
        var temporary = path + ".new";
        File.Delete(temporary);
        var options = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
        if (!OperatingSystem.IsWindows())
        {
            options.UnixCreateMode = mode;
        }

        using (var file = new FileStream(temporary, options))
        {
            file.Write(Encoding.UTF8.GetBytes(text));
            file.Flush(flushToDisk: true);
        }

        File.Move(temporary, path, overwrite: true);

        // The rename is a change of the file's inode too, so syncing the file again makes it durable (ext4, XFS, Btrfs).
        using var renamed = new FileStream(path, FileMode.Open, FileAccess.ReadWrite);
        renamed.Flush(flushToDisk: true);
    }
}
