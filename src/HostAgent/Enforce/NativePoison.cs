using Fleet.Linux;
using Fleet.Linux.Memory;

namespace Fleet.HostAgent.Enforce;

/// <summary>Pages that the kernel of this host has poisoned itself, after an error of its memory.</summary>
public static class NativePoison
{
    // Null where the kernel does not show them: then no entry can be told to be poison, and none counts.
    private static readonly Lazy<KernelPageFlags?> Flags = new(() =>
    {
        try
        {
            return KernelPageFlags.Open();
        }
        catch (LinuxException)
        {
            return null;
        }
    });

    public static bool Is(PageMapEntry entry) => entry.MayBeHardwarePoison && Flags.Value is { } flags && entry.IsHardwarePoison(flags);
}
