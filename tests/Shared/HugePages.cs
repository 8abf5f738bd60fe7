using System.Globalization;

namespace Fleet.Tests.Shared;

/// <summary>2 MiB pages for a test: they are made when too few are free, and vm.nr_hugepages is as before afterwards.</summary>
internal sealed class HugePages : IDisposable
{
    private const string Count = "/proc/sys/vm/nr_hugepages";

    private readonly FileStream _lock;
    private readonly string _before;

    private HugePages(FileStream held, string before) => (_lock, _before) = (held, before);

    /// <summary>Skips the test, with the reason, where they cannot be had.</summary>
    public static async Task<HugePages> ReserveAsync(int pages)
    {
        // Two projects that test at once would otherwise take each other's pages away.
        var held = await LockAsync();
        var before = (await System.IO.File.ReadAllTextAsync(Count)).Trim();
        var reserved = new HugePages(held, before);
        try
        {
            for (var attempt = 0; attempt < 2 && pages - Free() is var missing and > 0; attempt++)
            {
                var present = int.Parse(await System.IO.File.ReadAllTextAsync(Count), CultureInfo.InvariantCulture);
                await System.IO.File.WriteAllTextAsync(Count, (present + missing).ToString(CultureInfo.InvariantCulture));
                if (Free() < pages)
                {
                    // Memory may only lie in too small pieces.
                    await System.IO.File.WriteAllTextAsync("/proc/sys/vm/compact_memory", "1");
                }
            }
        }
        catch (Exception exception) when (exception is UnauthorizedAccessException or IOException)
        {
            // Seen below.
        }

        if (Free() >= pages)
        {
            return reserved;
        }

        reserved.Dispose();
        Requires.Kernel($"{pages} free pages of 2 MiB cannot be had (sysctl vm.nr_hugepages)");
        throw new InvalidOperationException("unreachable");
    }

    public void Dispose()
    {
        try
        {
            System.IO.File.WriteAllText(Count, _before);
        }
        catch (UnauthorizedAccessException)
        {
            // Then it was not changed either.
        }

        _lock.Dispose();
    }

    private static int Free() => int.Parse(
        System.IO.File.ReadAllText("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"), CultureInfo.InvariantCulture);

    private static async Task<FileStream> LockAsync()
    {
        while (true)
        {
            try
            {
                return new FileStream(Path.Combine(Path.GetTempPath(), "fleet-hugepages.lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException)
            {
                await Task.Delay(50, TestContext.Current.CancellationToken); // allowed: waits for another process
            }
        }
    }
}
