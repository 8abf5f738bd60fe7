using System.Globalization;

namespace Fleet.Linux.Processes;

/// <summary>One line of /proc/PID/maps (proc_pid_maps(5)).</summary>
/// <param name="Offset">Offset in the mapped file, in bytes.</param>
/// <param name="Device">Major and minor as the file shows them, such as <c>00:01</c>.</param>
public sealed record ProcessMap(ulong Start, ulong End, string Permissions, long Offset, string Device, ulong Inode, string Path)
{
    /// <summary>The mapped file; inode 0 for anonymous memory.</summary>
    public FileIdentity File => new(Device, Inode);

    public bool IsShared => Permissions[3] == 's';
}

public static class ProcessMaps
{
    /// <exception cref="IOException">The process has ended.</exception>
    /// <exception cref="UnauthorizedAccessException">No right to look.</exception>
    public static IEnumerable<ProcessMap> Read(int pid) => File.ReadLines(FormattableString.Invariant($"/proc/{pid}/maps")).Select(Parse);

    /// <summary>How many mappings the process has.</summary>
    /// <exception cref="IOException">The process has ended.</exception>
    public static int Count(int pid) => File.ReadLines(FormattableString.Invariant($"/proc/{pid}/maps")).Count();

    internal static ProcessMap Parse(string line)
    {
        var fields = line.Split(' ', 6, StringSplitOptions.None);
        var dash = fields[0].IndexOf('-', StringComparison.Ordinal);
        return new ProcessMap(
            Hex(fields[0].AsSpan(0, dash)),
            Hex(fields[0].AsSpan(dash + 1)),
            fields[1],
            (long)Hex(fields[2]),
            fields[3],
            ulong.Parse(fields[4], CultureInfo.InvariantCulture),
            fields.Length > 5 ? fields[5].TrimStart() : string.Empty);
    }

    private static ulong Hex(ReadOnlySpan<char> text) => ulong.Parse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
}
