using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Gate;

namespace Fleet.Api.Tests.Simulation;

/// <summary>The agent's look at its VM: what VmReconciler and GateKeeper do, with a simulated kernel and disk.</summary>
internal sealed partial class SimulatedHost
{
    /// <param name="fuse">Writes to disk after which the agent dies; negative: none.</param>
    public void Look(int fuse)
    {
        if (!IsAgentUp)
        {
            return;
        }

        if (Vmm is { IsAlive: false })
        {
            (Vmm, _ack, Verified) = (null, null, 0);
        }

        if (Desired is not { } desired)
        {
            return;
        }

        _fuse = fuse;
        try
        {
            var verified = Vmm is { } present && Enforce(present, desired);
            Verified = verified ? desired.Generation : Verified;
            foreach (var step in GateRules.Decide(View(desired, verified)))
            {
                Carry(step, desired);
            }
        }
        catch (AgentDied)
        {
            Crash();
        }
        finally
        {
            _fuse = -1;
        }
    }

    private GateView View(DesiredVm desired, bool verified) => new(
        Name, desired, Record, Vmm?.View(_isLatched), verified, VmmOfRecordLives,
        Vmm is { IsAlive: true } present && desired.Migration?.Permit?.VmmInstance == present.Instance,
        StoreEpochs.Of(desired.PlacementEpoch) < _promised);

    /// <returns>Whether every page was seen to be trapped.</returns>
    private bool Enforce(SimulatedVmm present, DesiredVm desired)
    {
        if (present.MemoryInstance != desired.MemoryInstance)
        {
            return false;
        }

        Settle(present);
        if (present.IncomingFor is not null && present.State != VmmStates.Loaded)
        {
            return false;
        }

        List<long> known = [.. desired.Pages.Select(page => page.Frame)];
        present.Reported.ExceptWith(known);
        if (present.IncomingFor is null)
        {
            present.Undelivered.ExceptWith(known);
        }

        SortedSet<long> wanted = [.. known.Union(present.Undelivered)];
        Disk(() => present.Trapped.UnionWith(wanted));
        foreach (var frame in wanted.Where(frame => !present.IsMarked(frame)).ToList())
        {
            Disk(() => present.Arm(frame));
        }

        if (present.IncomingFor is null && !desired.Quarantined && StoreEpochs.Of(desired.PlacementEpoch) >= _promised)
        {
            present.Armed.ExceptWith(present.Trapped.Except(wanted));
            present.Trapped.IntersectWith(wanted);
        }

        return wanted.All(present.IsMarked);
    }

    private void Settle(SimulatedVmm present)
    {
        if (present.IncomingFor is not null && Record.Vmm == present.Identity)
        {
            present.IncomingFor = null;
        }
    }

    private void Carry(GateStep step, DesiredVm desired)
    {
        switch (step)
        {
            case GateStep.Fence:
                Hold();
                Disk(() => Record = Record with { Closed = Record.Right });
                break;
            case GateStep.Hold:
                Hold();
                break;
            case GateStep.Run:
                Run();
                break;
            case GateStep.TakeRight take:
                Disk(() => Record = Record with
                {
                    Right = take.Epoch, MemoryInstance = desired.MemoryInstance, Vmm = Vmm!.Identity, Sealed = null, Lifted = take.Migration,
                });
                Lifts += take.Migration is null ? 0 : 1;
                Settle(Vmm!);
                Run();
                SpoolRecord(desired);
                break;
            case GateStep.Seal seal:
                Seal(seal, desired);
                break;
            case GateStep.Renounce renounce:
                Disk(() => Record = Record with { Closed = renounce.Epoch, Renounced = renounce.Migration });
                SpoolRecord(desired);
                break;
            case GateStep.SpoolAgain:
                SpoolRecord(desired);
                break;
            case GateStep.Acknowledge acknowledge:
                _ack = new GateAck(
                    vm, acknowledge.Migration, Vmm!.Instance, desired.MemoryInstance, desired.Generation,
                    PoisonDigest.Compute(vm, desired.MemoryInstance, desired.Pages), Unservable(desired));
                break;
            case GateStep.AttestGone when _attested.Add(desired.PlacementEpoch):
                Append(Report(AgentReport.VmmGone, desired.MemoryInstance, null, desired.PlacementEpoch));
                break;
        }
    }

    private void Hold()
    {
        Vmm?.Hold();
        _isLatched = Vmm is not null;
    }

    private void Run()
    {
        Vmm!.Run();
        guest.Boot(Vmm);
        _isLatched = false;
    }

    private void Seal(GateStep.Seal seal, DesiredVm desired)
    {
        foreach (var report in Sweep.Reports(desired, Unservable(desired), PoisonOrigins.Held, DateTimeOffset.UnixEpoch))
        {
            Disk(() => Append(report));
        }

        Disk(() => Record = Record with { Closed = seal.Epoch, Sealed = new SealRecord(seal.Migration, seal.Epoch, seal.TargetVmmInstance, Spooled: false) });
        SpoolRecord(desired);
    }

    private IReadOnlyList<PageKey> Unservable(DesiredVm desired) =>
        Sweep.Pages(desired.Pages, FrameSet.Of(Vmm!.Marked.Union(Vmm.Undelivered).Select(Page)).Except(FrameSet.Of(desired.Pages)));

    private void SpoolRecord(DesiredVm desired)
    {
        var record = Record;
        Disk(() =>
        {
            if (record.Sealed is { Spooled: false } seal)
            {
                Append(Report(AgentReport.Seal, desired.MemoryInstance, seal.Migration, seal.Epoch) with { TargetVmmInstance = seal.TargetVmmInstance });
            }

            if (record.Lifted is { } lifted)
            {
                Append(Report(AgentReport.Lifted, desired.MemoryInstance, lifted, record.Right));
            }

            if (record.Renounced is { } renounced)
            {
                Append(Report(AgentReport.Renounced, desired.MemoryInstance, renounced, record.Closed));
            }
        });
        Disk(() => Record = record with { Sealed = record.Sealed is { } spooled ? spooled with { Spooled = true } : null, Lifted = null, Renounced = null });
    }
}
