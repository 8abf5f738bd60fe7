using System.Globalization;

namespace Fleet.Linux.Hardware;

/// <summary>A memory module as the memory controller's driver counts its errors (Documentation/driver-api/edac.rst, Linux 3.6).</summary>
/// <param name="Id">Folder under the root, such as <c>mc0/dimm3</c>; a number given by the driver, not by the board.</param>
/// <param name="Label">As set by the firmware, a program or the administrator; often wrong, empty when nobody set it.</param>
/// <param name="Corrected">Since the driver was loaded, or its counters reset.</param>
public sealed record EdacModule(string Id, string Label, long Corrected);

/// <summary>EDAC's folder <c>/sys/devices/system/edac/mc</c>.</summary>
public static class EdacModules
{
    public const string DefaultFolder = "/sys/devices/system/edac/mc";

    /// <summary>All modules; empty where no driver is loaded. Modules behind rank-based controllers are ranks.</summary>
    public static IReadOnlyList<EdacModule> Read(string folder = DefaultFolder) =>
    [
        .. Controllers(folder)
            .SelectMany(controller => Directory.EnumerateDirectories(controller)
                .Where(module => Path.GetFileName(module) is var name && (IsNumbered(name, "dimm") || IsNumbered(name, "rank"))))
            .Order(StringComparer.Ordinal)
            .Select(module => new EdacModule(
                Path.GetRelativePath(folder, module), Text(module, "dimm_label") ?? string.Empty, Number(module, "dimm_ce_count"))),
    ];

    /// <summary>Corrected errors that the driver could give to no module, by controller.</summary>
    public static IReadOnlyDictionary<string, long> ReadUnlocated(string folder = DefaultFolder) =>
        Controllers(folder).ToDictionary(controller => Path.GetFileName(controller)!, controller => Number(controller, "ce_noinfo_count"), StringComparer.Ordinal);

    private static IEnumerable<string> Controllers(string folder) =>
        Directory.Exists(folder) ? Directory.EnumerateDirectories(folder).Where(path => IsNumbered(Path.GetFileName(path), "mc")) : [];

    private static bool IsNumbered(string name, string prefix) =>
        name.StartsWith(prefix, StringComparison.Ordinal) && name.Length > prefix.Length && name.AsSpan(prefix.Length).IndexOfAnyExceptInRange('0', '9') < 0;

    private static long Number(string folder, string file) =>
        long.TryParse(Text(folder, file), NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? number : 0;

    private static string? Text(string folder, string file)
    {
        try
        {
            return File.ReadAllText(Path.Combine(folder, file)).Trim();
        }
        catch (IOException)
        {
            // Older drivers lack some, and a driver can be unloaded meanwhile.
            return null;
        }
    }
}
