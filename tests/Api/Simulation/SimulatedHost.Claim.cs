using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Gate;
using Fleet.HostAgent.Restore;

namespace Fleet.Api.Tests.Simulation;

/// <summary>The agent's claim, and what it states after a restore: what ControlPlaneService and Stating do.</summary>
internal sealed partial class SimulatedHost
{
    private async Task ClaimAsync()
    {
        IEnumerable<DesiredVm> desired = Desired is null ? [] : [Desired];
        await caller.ClaimAsync(StatementRules.HighestSeen(desired, [Record], _incarnation, _promised), _incarnation, Boot, Position);
        var claim = caller.Claim;
        Assert.True(claim.StoreEpoch >= _promised, $"{Name} promised {_promised}, and is claimed in {claim.StoreEpoch}");
        Disk(() => _incarnation = claim.Incarnation);
        if (claim.StatementRequired || claim.StoreEpoch > _promised)
        {
            Disk(() => _promised = Math.Max(_promised, claim.StoreEpoch));
            _ack = null;
            Disk(() => Record = StatementRules.Close(Record, VmmOfRecordLives, claim.StoreEpoch));
        }

        if (claim.StatementRequired)
        {
            (await caller.SendStatementAsync(Position, [.. State()])).EnsureSuccessStatusCode();
        }
        else if (_isForgotten)
        {
            (_spoolId, _sequence) = (Guid.NewGuid().ToString("N"), 0);
            _spool = [.. _spool.Select(report => report with { Sequence = ++_sequence })];
        }

        _isForgotten = false;
    }

    private IEnumerable<VmStatement> State()
    {
        if (Desired is null && Vmm is null && Record.Right == 0)
        {
            yield break;
        }

        var held = Vmm is null ? [] : Vmm.Trapped.Union(Vmm.Undelivered).Union(Vmm.Reported).Union(Vmm.IsAlive ? Vmm.Marked : []);
        var known = Desired?.Pages ?? [];
        yield return StatementRules.State(
            Record, VmmOfRecordLives, Desired, Vmm?.MemoryInstance ?? 0, unguarded: false, Desired?.Memory,
            Sweep.Pages(known, FrameSet.Of(held.Select(Page)).Except(FrameSet.Of(known))));
    }
}
