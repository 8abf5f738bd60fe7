using System.Globalization;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Options;
using Fleet.Linux.Processes;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Enforce;

/// <summary>
/// How many mappings a VMM may have (vm.max_map_count). A registered range is a mapping of its own and cuts the one around it, so that
/// many isolated pages could use all of them up: the VMM's next mmap would fail.
/// </summary>
public sealed class MapLimit(IOptions<AgentOptions> options)
{
    /// <summary>Pages cannot be armed without using up the mappings that the VMM may have.</summary>
    public const string Reason = "mapping-limit";

    private const int MappingsOfARange = 2;

    // An eighth is left to the VMM.
    private readonly Lazy<int> _most = new(() => (options.Value.MapCountLimit > 0 ? options.Value.MapCountLimit : OfTheKernel()) / 8 * 7);

    /// <summary>Whether registering these frames, each range by itself, could leave the VMM too few.</summary>
    /// <exception cref="IOException">The VMM has ended.</exception>
    public bool WouldExhaust(Attachment attachment, FrameSet frames)
    {
        var needed = MappingsOfARange * attachment.Layout.Widen(frames).Ranges.Count;
        return needed > 0 && ProcessMaps.Count(attachment.Vmm.Pid) + needed > _most.Value;
    }

    private static int OfTheKernel() => int.Parse(File.ReadAllText("/proc/sys/vm/max_map_count"), CultureInfo.InvariantCulture);
}
