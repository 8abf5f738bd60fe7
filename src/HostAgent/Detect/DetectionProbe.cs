using Fleet.Linux;
using Fleet.Linux.Hardware;
using Fleet.Linux.Memory;
using Fleet.Linux.Tracing;

namespace Fleet.HostAgent.Detect;

/// <summary>What this host can find of its own memory errors, found out by trying each part.</summary>
public static class DetectionProbe
{
    /// <summary>Adds <c>detection</c> (<c>kernel</c>, or <c>vmm</c> where only VMMs can tell) and a row for each part.</summary>
    public static void AddTo(IDictionary<string, string> table)
    {
        var (events, entries) = (Try(FindEvent), Try(ReadEntries));
        table["detection"] = events == "yes" && entries == "yes" ? "kernel" : "vmm";
        table["detection.events"] = events;
        table["detection.page-tables"] = entries;
        table["detection.modules"] = (EdacModules.Read().Count, SmbiosModules.Read().Count) switch
        {
            (0, 0) => "no: neither EDAC nor SMBIOS names a memory module",
            (0, _) => "smbios",
            (_, 0) => "edac",
            _ => "edac, smbios",
        };
    }

    private static string FindEvent()
    {
        using var fs = TraceFs.Open();
        return MemoryFailureEvent.Names.Any(fs.HasEvent) ? "yes" : "no: the kernel has no memory_failure_event (CONFIG_MEMORY_FAILURE)";
    }

    private static string ReadEntries()
    {
        using var flags = KernelPageFlags.Open();
        using var map = PageMap.Open(Environment.ProcessId);
        using var page = MemoryMapping.MapAnonymous(4096);
        PageScan.FindNotPresent(map, page.Address, page.Address + 4096);
        return "yes";
    }

    private static string Try(Func<string> probe)
    {
        try
        {
            return probe();
        }
        catch (LinuxException exception)
        {
            return $"no: {exception.Call}: {exception.Errno}";
        }
    }
}
