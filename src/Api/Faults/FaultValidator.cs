using Fleet.Api.Problems;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Faults;

namespace Fleet.Api.Faults;

/// <summary>The shape of a reported memory error.</summary>
internal static class FaultValidator
{
    private const int MaximumText = 128;

    public static void Check(AgentReport report, string path, ValidationErrors errors)
    {
        if (report.Vm is not null && report.Frame is < 0 or > FrameMath.MaximumFrame)
        {
            errors.Add($"{path}.frame", "Not a guest frame number (4 KiB units, below 2^40).");
        }

        if (report.MemoryFault is not { } fault)
        {
            errors.Add($"{path}.memoryFault", "Needed for a fault.");
            return;
        }

        if (!FaultKinds.IsValid(fault.Kind))
        {
            errors.Add($"{path}.memoryFault.kind", "corrected or uncorrected.");
        }

        if (fault.PhysicalFrame is < 0 or > FrameMath.MaximumFrame)
        {
            errors.Add($"{path}.memoryFault.physicalFrame", "Not a physical frame number (4 KiB units, below 2^40).");
        }

        if (fault.Dimm is { } dimm)
        {
            CheckDimm(dimm, $"{path}.memoryFault.dimm", errors);
        }
    }

    private static void CheckDimm(DimmIdentity dimm, string path, ValidationErrors errors)
    {
        (string Name, string? Text)[] members =
        [
            ("label", dimm.Label), ("locator", dimm.Locator), ("serial", dimm.Serial), ("manufacturer", dimm.Manufacturer), ("partNumber", dimm.PartNumber),
        ];
        if (Array.TrueForAll(members, member => member.Text is null))
        {
            errors.Add(path, "At least one member, or null where the module is not known.");
        }

        foreach (var (name, text) in members)
        {
            if (text is not null && (text.Length is 0 or > MaximumText || text.Any(char.IsControl)))
            {
                errors.Add($"{path}.{name}", $"1 to {MaximumText} characters, no control characters; null when not known.");
            }
        }
    }
}
