namespace Fleet.Data.Storage;

/// <summary>The data folder belongs to one process at a time: a control plane, or the verb that replaces its database.</summary>
internal sealed class StoreLock : IDisposable
{
    private readonly FileStream _file;

    private StoreLock(FileStream file) => _file = file;

    /// <exception cref="StoreException">Another process has it.</exception>
    public static StoreLock Take(StoreOptions store)
    {
        try
        {
            var options = new FileStreamOptions { Mode = FileMode.OpenOrCreate, Access = FileAccess.ReadWrite, Share = FileShare.None };
            if (!OperatingSystem.IsWindows())
            {
                options.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
            }

            // FileShare.None is an advisory flock(2) on Linux, dropped by the kernel however the process ends.
            return new StoreLock(new FileStream(store.LockPath, options));
        }
        catch (IOException exception)
        {
            throw new StoreException($"Another process uses the data folder {store.Folder}.", exception);
        }
    }

    public void Dispose() => _file.Dispose();
}
