using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>A file system of its own (tmpfs) of a few hundred kilobytes, which can be filled and remounted read-only. Unmounted when disposed.</summary>
internal sealed class SmallDisk : IAsyncDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("fl-disk-");

    private SmallDisk()
    {
    }

    public string Root => _folder.FullName;

    private string Ballast => Path.Combine(Root, "ballast");

    public static async Task<SmallDisk> MountAsync()
    {
        Requires.Root();
        var disk = new SmallDisk();
        await CHelper.RunAsync("mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "fleet-test", disk.Root);
        return disk;
    }

    /// <summary>Takes every byte that is left.</summary>
    public void Fill()
    {
        using var file = new FileStream(Ballast, FileMode.Append, FileAccess.Write, FileShare.None, 0);
        foreach (var size in new[] { 4096, 1 })
        {
            try
            {
                while (true)
                {
                    file.Write(new byte[size]);
                }
            }
            catch (IOException)
            {
                // Full, for writes of this size.
            }
        }
    }

    public void Empty() => File.Delete(Ballast);

    public Task RemountAsync(bool readOnly) => CHelper.RunAsync("mount", "-o", readOnly ? "remount,ro" : "remount,rw", Root);

    public async ValueTask DisposeAsync()
    {
        await CHelper.RunAsync("umount", Root);
        _folder.Delete();
    }
}
