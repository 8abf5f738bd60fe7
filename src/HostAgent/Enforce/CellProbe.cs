using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.Enforce;

/// <summary>Tries every cell on throw-away memory of this process: fills a page, zaps it, marks or traps it, and reads it as a guest would.</summary>
internal static class CellProbe
{
    private const byte Fill = 0x5a;
    // Only a kernel that neither answers an access nor tells of it keeps anybody waiting for so long.
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    public static IReadOnlyList<CellState> TryAll() => [.. EnforcementCell.All.Select(cell => new CellState(cell, cell.Impossible ?? WhyNot(cell)))];

    private static string? WhyNot(EnforcementCell cell)
    {
        try
        {
            using var memory = new ProbeMemory(cell.Memory);
            var filled = ProcessMemory.Write(Environment.ProcessId, memory.Address, [Fill]) == Errno.None;
            memory.Register();
            memory.Zap(cell.Zap);
            return (cell.Policy == EnforcementPolicy.Marker ? TryMarker(memory, cell) : TryTrap(memory))
                ?? (filled || cell.Memory is MemoryClass.Hugetlb or MemoryClass.HugetlbPrivate ? null : "the page could not be written before");
        }
        catch (LinuxException exception)
        {
            return $"{exception.Call}: {exception.Errno}";
        }
    }

    private static string? TryMarker(ProbeMemory memory, EnforcementCell cell)
    {
        // What a remap brings along is marked already.
        var poisoned = memory.Poison();
        if (!poisoned.Succeeded && !(cell.Zap == ZapMethod.Remap && poisoned.Error == Errno.EEXIST))
        {
            return $"UFFDIO_POISON: {poisoned.Error}";
        }

        return !memory.IsMarked() ? "the kernel does not show the marker"
            : ProcessMemory.Read(Environment.ProcessId, memory.Address, new byte[1]) != Errno.EFAULT ? "the page could be read"
            : null;
    }

    private static string? TryTrap(ProbeMemory memory)
    {
        if (!memory.IsHole())
        {
            return "the page is still mapped";
        }

        using var answered = new ManualResetEventSlim();
        using var read = new ManualResetEventSlim();
        var result = Errno.None;
        using var loop = new UffdEventLoop(_ => { });
        loop.Add(memory.Userfaultfd, _ =>
        {
            // In this order: the mark wakes the reader, who may be done before this thread runs again.
            answered.Set();
            memory.Poison();
        });
        var reader = new Thread(() =>
        {
            result = ProcessMemory.Read(Environment.ProcessId, memory.Address, new byte[1]);
            read.Set();
        }) { IsBackground = true, Name = "probe-trap" };
        reader.Start();
        if (!read.Wait(Patience))
        {
            // Lets go of whoever waits there.
            memory.Unregister();
        }

        reader.Join();
        return !answered.IsSet ? "an access raises no event" : result != Errno.EFAULT ? "the page could be read" : null;
    }
}
