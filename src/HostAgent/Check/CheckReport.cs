using System.Text.Json.Serialization;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Enforce;
using Fleet.Linux.Processes;

namespace Fleet.HostAgent.Check;

/// <summary>What the agent could do on this host; the answer of <c>check --json</c>.</summary>
/// <param name="Ok">Pages of memfd memory can be enforced with the default policy.</param>
/// <param name="Cells">Every way to enforce a page, tried on throw-away memory.</param>
/// <param name="Capabilities">The table that the agent sends to the control plane.</param>
/// <param name="Advice">What to do where something is missing.</param>
public sealed record CheckReport(
    bool Ok,
    string AgentVersion,
    string Kernel,
    bool Privileged,
    IReadOnlyList<CheckCell> Cells,
    IReadOnlyDictionary<string, string> Capabilities,
    IReadOnlyList<string> Advice)
{
    /// <summary>Looks at this host.</summary>
    public static CheckReport Make() => Make(CapabilityProbe.Table(), Environment.IsPrivilegedProcess, EnforcementTable.OfThisHost);

    public static CheckReport Make(IReadOnlyDictionary<string, string> capabilities, bool privileged, EnforcementTable table) => new(
        capabilities.GetValueOrDefault(CapabilityProbe.MarkerOnMemfd) == "yes" && privileged,
        HostAgent.AgentVersion.Text,
        KernelInfo.Release,
        privileged,
        [.. table.Cells.Select(state => new CheckCell(
            EnforcementCell.NameOf(state.Cell.Memory), EnforcementCell.NameOf(state.Cell.Zap), EnforcementCell.NameOf(state.Cell.Policy),
            state.IsAble, state.Cell.By, state.WhyNot))],
        capabilities,
        [.. CheckAdvice.For(capabilities, privileged)]);
}

/// <param name="By">Who carries the zap out: <c>agent</c>, <c>vmm</c>, or a dash where nobody can.</param>
/// <param name="Reason">Why not; null when it works.</param>
public sealed record CheckCell(string Memory, string Zap, string Policy, bool Able, string By, string? Reason);

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    WriteIndented = true)]
[JsonSerializable(typeof(CheckReport))]
internal sealed partial class CheckJson : JsonSerializerContext;
