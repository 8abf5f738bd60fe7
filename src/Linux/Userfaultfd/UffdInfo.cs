using System.Globalization;

namespace Fleet.Linux.Userfaultfd;

/// <summary>
/// /proc/PID/fdinfo of a userfaultfd: the line <c>API: aa:FEATURES:IOCTLS</c> in hex (fs/userfaultfd.c,
/// userfaultfd_show_fdinfo). The handshake sets bit 31, UFFD_FEATURE_INITIALIZED, which is internal to the kernel.
/// </summary>
internal static class UffdInfo
{
    private const ulong Initialized = 1UL << 31;

    /// <summary>The features of the handshake; null before it.</summary>
    internal static UffdFeatures? ReadFeatures(int fd)
    {
        foreach (var line in File.ReadLines(FormattableString.Invariant($"/proc/self/fdinfo/{fd}")))
        {
            if (!line.StartsWith("API:", StringComparison.Ordinal))
            {
                continue;
            }

            var features = ulong.Parse(line[4..].Trim().Split(':')[1], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
            return (features & Initialized) != 0 ? (UffdFeatures)(features & ~Initialized) : null;
        }

        return null;
    }
}
