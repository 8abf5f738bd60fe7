namespace Fleet.Linux.Processes;

public static class KernelInfo
{
    /// <summary>Random id of this boot of the host.</summary>
    public static string BootId { get; } = File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim();

    /// <summary>Kernel release, as <c>uname -r</c> prints it.</summary>
    public static string Release { get; } = File.ReadAllText("/proc/sys/kernel/osrelease").Trim();
}
