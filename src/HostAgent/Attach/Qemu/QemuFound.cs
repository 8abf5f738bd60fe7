using Fleet.Contracts.Agents;
using Fleet.HostAgent.Observe;
using Fleet.HostAgent.Reconcile;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>What one QEMU process told, with what it means there.</summary>
internal sealed class QemuFound(Attachment of)
{
    public Attachment Of { get; } = of;

    public List<ObservedAccess> Hits { get; } = [];

    public List<AgentReport> Poison { get; } = [];

    public void Add(ObservedAccess hit)
    {
        var at = Hits.FindIndex(other => other with { Count = 0, FirstAt = default, LastAt = default } == hit with { Count = 0, FirstAt = default, LastAt = default });
        if (at < 0)
        {
            Hits.Add(hit);
        }
        else
        {
            Hits[at] = Hits[at] with { Count = Hits[at].Count + hit.Count, LastAt = hit.LastAt };
        }
    }

    public IReadOnlyList<AgentReport> Reports(VmEntry entry, string? origin) =>
    [
        .. Poison.Select(report => report with { Origin = origin }),
        .. Hits.Select(hit => hit.ToReport(entry.Vm, Of.MemoryInstance, entry.PlacementEpoch ?? 0)),
    ];
}
