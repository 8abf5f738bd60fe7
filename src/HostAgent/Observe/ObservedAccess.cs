using Fleet.Contracts.Agents;
using Fleet.Contracts.Hits;

namespace Fleet.HostAgent.Observe;

/// <summary>Accesses to one page that agree in everything, with a count; times are those at which they were read.</summary>
/// <param name="Access">As <see cref="HitAccesses"/>.</param>
/// <param name="Evidence">As <see cref="HitEvidences"/>.</param>
/// <param name="Outcome">As <see cref="HitOutcomes"/>.</param>
public sealed record ObservedAccess(
    long Frame, string Access, int? Vcpu, string Evidence, string Outcome, long Count, DateTimeOffset FirstAt, DateTimeOffset LastAt)
{
    /// <param name="placementEpoch">The newest known; 0 when none is.</param>
    public AgentReport ToReport(string vm, long memoryInstance, long placementEpoch) => new(
        0, AgentReport.Hit, vm, memoryInstance, Frame, null, null, null, placementEpoch, FirstAt, LastAt, Count, Access, Vcpu, Evidence, Outcome);
}
