using Fleet.Linux.Memory;
using Fleet.Linux.Processes;

namespace Fleet.Linux.Ptrace;

/// <summary>Finds instructions in what a process has mapped to execute: nothing need be written into its code.</summary>
internal sealed class CodeSearch
{
    private const int LargestMapping = 32 << 20;
    private readonly int _pid;
    private readonly List<ProcessMap> _maps;
    private readonly Dictionary<ulong, byte[]> _read = [];

    /// <exception cref="LinuxException">ESRCH: the process has ended.</exception>
    internal CodeSearch(int pid)
    {
        _pid = pid;
        var maps = ProcessMaps.Read(pid).ToList();
        if (maps.Count == 0)
        {
            throw new LinuxException("read the process's mappings", Errno.ESRCH);
        }

        // The vDSO is in every process (vdso(7)), and small; the C library has the rest.
        _maps = [.. maps.Where(map => map.Permissions.StartsWith("r-x", StringComparison.Ordinal))
            .OrderBy(map => map.Path == "[vdso]" ? 0 : map.Path.Contains("/libc.", StringComparison.Ordinal) || map.Path.Contains("/ld-", StringComparison.Ordinal) ? 1 : 2)];
    }

    /// <summary>The address of the bytes; they may be part of a longer instruction, and are one all the same. Null where there are none.</summary>
    /// <exception cref="LinuxException">ESRCH: the process has ended.</exception>
    internal ulong? Find(ReadOnlySpan<byte> instructions)
    {
        foreach (var map in _maps)
        {
            if (Read(map).AsSpan().IndexOf(instructions) is >= 0 and var at)
            {
                return map.Start + (ulong)at;
            }
        }

        return null;
    }

    private byte[] Read(ProcessMap map)
    {
        if (!_read.TryGetValue(map.Start, out var code))
        {
            code = new byte[Math.Min(map.End - map.Start, LargestMapping)];
            switch (ProcessMemory.Read(_pid, map.Start, code))
            {
                case Errno.None:
                    break;
                case Errno.ESRCH:
                    throw new LinuxException("read the process's code", Errno.ESRCH);
                default:
                    // [vsyscall] of old kernels, or gone meanwhile.
                    code = [];
                    break;
            }

            _read.Add(map.Start, code);
        }

        return code;
    }
}
