using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.Data;
using Fleet.Data.Entities;

namespace Fleet.Api.Agents;

/// <summary>What a host enforces of a VM, judged from its last heartbeat against the set as it is now. Doubt is never armed.</summary>
public sealed class Enforcement(StatusBoard board, DigestCache digests)
{
    /// <param name="db">A context that sees the VM's set as of the row.</param>
    public async ValueTask<VmEnforcement> OfAsync(FleetDbContext db, VmRow vm, string host, CancellationToken cancellationToken)
    {
        if (board.StatusOf(host, vm.Id) is not { } status)
        {
            return new VmEnforcement(host, null, EnforcementStates.Unknown);
        }

        if (status.MemoryInstance != vm.MemoryInstance)
        {
            return new VmEnforcement(host, null, EnforcementStates.Pending, "stale-memory-instance");
        }

        if (status.State == EnforcementStates.Failed || status.Exceptions.Any(IsFailed))
        {
            return new VmEnforcement(host, status.ArmedGeneration, EnforcementStates.Failed, status.Reason ?? "pages-failed");
        }

        var armed = status.State == EnforcementStates.Armed
            && status.ArmedGeneration == vm.Generation
            && status.Exceptions.All(exception => exception.ArmedShift is not null)
            && status.Digest == await digests.OfAsync(db, vm, cancellationToken);
        return new VmEnforcement(host, status.ArmedGeneration, armed ? EnforcementStates.Armed : EnforcementStates.Pending, armed ? null : status.Reason);
    }

    public static bool IsFailed(PageException exception) => exception.ArmedShift is null && exception.State == EnforcementStates.Failed;
}
