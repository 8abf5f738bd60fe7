using Fleet.Contracts.Faults;
using Fleet.Linux.Hardware;
using Fleet.Linux.Tracing;

namespace Fleet.HostAgent.Detect;

/// <summary>
/// Which memory module an error is in, as far as the host can tell. Where it cannot, the answer is null: a wrong module costs a good one.
/// </summary>
public sealed class MemoryModules(HardwareRoots roots)
{
    private const int LongestText = 128;
    private const int MostSightings = 256;

    private readonly Lock _lock = new();
    private readonly Queue<MemoryControllerEvent> _sightings = [];

    /// <summary>The driver of the memory controller located an error: it may be told of by its frame soon.</summary>
    public void Saw(MemoryControllerEvent sighting)
    {
        lock (_lock)
        {
            _sightings.Enqueue(sighting);
            if (_sightings.Count > MostSightings)
            {
                _sightings.Dequeue();
            }
        }
    }

    /// <summary>The module with this frame: as the driver located an error there, or the only one that the host has.</summary>
    public DimmIdentity? Of(long? physicalFrame)
    {
        var (edac, smbios) = (EdacModules.Read(roots.Edac), SmbiosModules.Read(roots.Dmi));
        if (physicalFrame is { } frame && LabelOf((ulong)frame) is { } label && edac.Count(module => module.Label == label) == 1)
        {
            return Identify(edac.Single(module => module.Label == label), edac, smbios);
        }

        return (edac.Count, smbios.Count) switch
        {
            (1, <= 1) => Identify(edac[0], edac, smbios),
            (0, 1) => Identity(null, smbios[0]),
            _ => null,
        };
    }

    /// <summary>What a module that EDAC counts for is called.</summary>
    public DimmIdentity? Identify(EdacModule module)
    {
        var all = EdacModules.Read(roots.Edac);
        return Identify(module, all, SmbiosModules.Read(roots.Dmi));
    }

    // By name only, and only where one slot answers to it: the order of slots in the two tables says nothing.
    private static DimmIdentity? Identify(EdacModule module, IReadOnlyList<EdacModule> edac, IReadOnlyList<SmbiosModule> smbios)
    {
        var named = smbios.Where(slot => IsNamed(slot, module.Label)).ToList();
        return named.Count == 1 ? Identity(module.Label, named[0])
            : edac.Count == 1 && smbios.Count == 1 ? Identity(module.Label, smbios[0])
            : Identity(module.Label, null);
    }

    // "P1-DIMMA3", and as the driver for firmware-first hosts puts it: bank and slot.
    private static bool IsNamed(SmbiosModule slot, string label) =>
        label.Length > 0 && slot.Locator is { } locator
        && (Same(label, locator) || (slot.Bank is { } bank && (Same(label, $"{bank} {locator}") || Same(label, $"{bank}/{locator}") || Same(label, $"{bank}_{locator}"))));

    private static bool Same(string label, string name) => string.Equals(label.Trim(), name.Trim(), StringComparison.OrdinalIgnoreCase);

    private string? LabelOf(ulong frame)
    {
        lock (_lock)
        {
            return _sightings.LastOrDefault(sighting => sighting.Names(frame))?.Label;
        }
    }

    private static DimmIdentity? Identity(string? label, SmbiosModule? slot)
    {
        var identity = new DimmIdentity(Clean(label), Clean(slot?.Locator), Clean(slot?.Serial), Clean(slot?.Manufacturer), Clean(slot?.PartNumber));
        return identity == new DimmIdentity(null, null, null, null, null) ? null : identity;
    }

    private static string? Clean(string? text)
    {
        var clean = new string([.. (text ?? string.Empty).Where(character => !char.IsControl(character)).Take(LongestText)]).Trim();
        return clean.Length == 0 ? null : clean;
    }
}
