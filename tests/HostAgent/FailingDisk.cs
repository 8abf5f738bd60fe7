using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>
/// An ext4 file system of its own that can be made to fail as one does whose disk does: it turns read-only under whoever uses it, what is there can
/// be read, and fsync fails (ext4(5), errors=remount-ro). Unmounted when disposed.
/// </summary>
internal sealed class FailingDisk : IAsyncDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("fl-disk-");
    private string _device = string.Empty;

    private FailingDisk()
    {
    }

    public string Root => _folder.FullName;

    private string Image => Root + ".img";

    public static async Task<FailingDisk> MountAsync()
    {
        Requires.Root();
        Requires.File("/usr/sbin/mkfs.ext4", "Debian package e2fsprogs");
        Requires.File("/dev/loop-control", "the kernel's loop device (modprobe loop)");
        var disk = new FailingDisk();
        await using (var file = new FileStream(disk.Image, FileMode.CreateNew))
        {
            file.SetLength(16 << 20);
        }

        await CHelper.RunAsync("/usr/sbin/mkfs.ext4", "-q", "-F", "-O", "^has_journal", disk.Image);
        await CHelper.RunAsync("mount", "-o", "loop,errors=remount-ro", disk.Image, disk.Root);
        var mounted = (await File.ReadAllLinesAsync("/proc/self/mounts", TestContext.Current.CancellationToken)).Select(line => line.Split(' ')).Single(fields => fields[1] == disk.Root);
        disk._device = Path.GetFileName(mounted[0]);
        return disk;
    }

    public void Fail() => File.WriteAllText($"/sys/fs/ext4/{_device}/trigger_fs_error", "1");

    public async ValueTask DisposeAsync()
    {
        await CHelper.RunAsync("umount", Root);
        _folder.Delete();
        File.Delete(Image);
    }
}
