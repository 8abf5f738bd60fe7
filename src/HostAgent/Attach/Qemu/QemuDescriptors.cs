using System.Globalization;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>The open descriptors of a process, as /proc/PID/fd shows them.</summary>
public static class QemuDescriptors
{
    /// <exception cref="IOException">The process has ended.</exception>
    public static IEnumerable<(int Number, string? Link)> Of(int pid) =>
        Directory.EnumerateFileSystemEntries(FormattableString.Invariant($"/proc/{pid}/fd"))
            .Select(path => (int.Parse(Path.GetFileName(path.AsSpan()), CultureInfo.InvariantCulture), LinkOf(path)));

    private static string? LinkOf(string path)
    {
        try
        {
            return new FileInfo(path).LinkTarget;
        }
        catch (IOException)
        {
            // Closed since the folder was read.
            return null;
        }
    }
}
