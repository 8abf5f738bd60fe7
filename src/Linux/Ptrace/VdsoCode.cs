using Fleet.Linux.Memory;
using Fleet.Linux.Processes;

namespace Fleet.Linux.Ptrace;

/// <summary>Finds code in the vDSO (vdso(7)), which the kernel maps into every process: nothing need be written into the target.</summary>
internal static class VdsoCode
{
    private const int LargestVdso = 1 << 20;

    /// <summary>The address of an instruction; the bytes may belong to a longer one, where they are an instruction all the same.</summary>
    /// <exception cref="LinuxException">ENOTSUP: the process has no vDSO (boot option vdso=0), or none with the instruction; ESRCH: it has ended.</exception>
    internal static ulong Find(int pid, ReadOnlySpan<byte> instruction)
    {
        var maps = ProcessMaps.Read(pid).ToList();
        var map = maps.Find(map => map.Path == "[vdso]") ?? throw new LinuxException("find the vDSO", maps.Count == 0 ? Errno.ESRCH : Errno.ENOTSUP);
        var code = new byte[Math.Min(map.End - map.Start, LargestVdso)];
        if (ProcessMemory.Read(pid, map.Start, code) is not Errno.None and var error)
        {
            throw new LinuxException("read the vDSO", error);
        }

        var at = code.AsSpan().IndexOf(instruction);
        return at >= 0 ? map.Start + (ulong)at : throw new LinuxException("find a system call instruction in the vDSO", Errno.ENOTSUP);
    }
}
