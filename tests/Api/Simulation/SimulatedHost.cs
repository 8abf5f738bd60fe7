using Fleet.Api.Agents;
using Fleet.Api.Agents.Push;
using Fleet.Api.Problems;
using Fleet.Api.Restore;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Gate;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Restore;
using Fleet.Linux.Processes;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests.Simulation;

/// <summary>
/// A host with one VM at most and an agent on it. What the agent decides is the product's own code (GateRules, DesiredRules,
/// StatementRules, Reconciler); its disk, its sockets and the kernel are here, so that it can die between any two of its writes.
/// </summary>
internal sealed partial class SimulatedHost(TestAgent caller, IServiceProvider services, SimulatedGuest guest, string vm)
{
    private readonly List<(string SpoolId, AgentReport Report)> _sent = [];
    private readonly HashSet<long> _attested = [];
    private readonly List<DesiredVm> _delayed = [];
    private readonly StoreWriter _writer = services.GetRequiredService<StoreWriter>();
    private string _spoolId = Guid.NewGuid().ToString("N");
    private List<AgentReport> _spool = [];
    private long _sequence;
    private GateAck? _ack;
    private bool _isLatched;
    private bool _isForgotten;
    private long _promised;
    private long? _incarnation;
    private int _boots = 1;
    private int _processes;
    private int _fuse = -1;

    public string Name => caller.Host;

    public bool IsPowered { get; private set; } = true;

    public bool IsAgentUp { get; private set; } = true;

    /// <summary>It has claimed its host, and stated what it holds where that was asked for.</summary>
    public bool IsClaimed { get; private set; }

    public GateRecord Record { get; private set; } = new(vm);

    public DesiredVm? Desired { get; private set; }

    public SimulatedVmm? Vmm { get; private set; }

    /// <summary>The generation whose pages were all seen to be trapped in the present VMM, last.</summary>
    public long Verified { get; private set; }

    /// <summary>Rights taken by a permit.</summary>
    public int Lifts { get; private set; }

    private SpoolPosition Position => new(_spoolId, (_spool.Count > 0 ? _spool[0].Sequence : _sequence + 1) - 1);

    private string Boot => $"{Name}-boot-{_boots}";

    private bool Talks => IsPowered && IsAgentUp && IsClaimed;

    public void StartVmm(bool isIncoming)
    {
        var bound = isIncoming ? Desired?.Migration is { } migration && migration.TargetHost == Name ? migration.Id : null : null;
        if (IsPowered && IsAgentUp && Desired is { } desired && Vmm is not { IsAlive: true } && (bound is not null || !isIncoming))
        {
            Vmm = new SimulatedVmm(new ProcessIdentity(Boot, ++_processes, 1), desired.MemoryInstance, bound);
            (_isLatched, Verified) = (false, 0);
        }
    }

    public void KillVmm()
    {
        if (Vmm is { } vmm)
        {
            vmm.IsAlive = false;
        }
    }

    public void PowerOff()
    {
        KillVmm();
        Crash();
        IsPowered = false;
    }

    public void PowerOn()
    {
        if (!IsPowered)
        {
            _boots++;
            IsPowered = true;
        }
    }

    /// <summary>What is not on disk is gone.</summary>
    public void Crash() => (IsAgentUp, IsClaimed, _ack, _isLatched, _fuse) = (false, false, null, false, -1);

    /// <summary>The orchestrator's request to pause; the agent alone lets it run again.</summary>
    public void Pause() => Vmm?.Hold();

    /// <summary>Everything the agent does in turn, once.</summary>
    public async Task TickAsync()
    {
        await StartAgentAsync(-1);
        Store();
        await FetchAsync();
        Look(-1);
        await SendAsync(int.MaxValue);
    }

    /// <summary>The agent's process starts, or claims again because it was told to.</summary>
    /// <param name="fuse">Writes to disk after which it dies; negative: none.</param>
    public async Task StartAgentAsync(int fuse)
    {
        if (!IsPowered || Talks)
        {
            return;
        }

        (IsAgentUp, _fuse) = (true, fuse);
        try
        {
            await ClaimAsync();
            IsClaimed = true;
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

    /// <summary>Events of its VMM reach the agent's spool.</summary>
    public void Store()
    {
        if (!IsAgentUp || Vmm is not { IsAlive: true } present)
        {
            return;
        }

        var origin = Record.Vmm != present.Identity ? PoisonOrigins.Incoming : Record.IsOpen ? PoisonOrigins.Held : PoisonOrigins.Sealed;
        foreach (var frame in present.Events)
        {
            if (origin == PoisonOrigins.Incoming)
            {
                present.Undelivered.Add(frame);
                _ack = null;
            }
            else if (origin == PoisonOrigins.Held)
            {
                present.Reported.Add(frame);
            }

            Append(Report(AgentReport.Poison, present.MemoryInstance, null, Desired?.PlacementEpoch) with
            {
                Frame = frame, Shift = FrameMath.FrameShift, Origin = origin,
            });
        }

        present.Events.Clear();
    }

    /// <summary>Reads its VM's desired state from the control plane, and takes it in at once.</summary>
    public async Task FetchAsync()
    {
        if (await ReadAsync() is (true, var view))
        {
            Adopt(view);
        }
    }

    /// <summary>Reads it, and has it arrive later.</summary>
    public async Task FetchForLaterAsync()
    {
        if (await ReadAsync() is (true, { } view))
        {
            _delayed.Add(view);
        }
    }

    public void AdoptDelayed(int number)
    {
        if (IsAgentUp && _delayed.Count > 0)
        {
            Adopt(_delayed[number % _delayed.Count]);
        }
    }

    /// <summary>The head of the spool, and with the last report what waits to be acknowledged.</summary>
    public async Task SendAsync(int most)
    {
        if (!Talks)
        {
            return;
        }

        var reports = _spool.Take(most).ToList();
        List<GateAck> acks = _ack is { } ack && reports.Count == _spool.Count ? [ack] : [];
        _ack = acks.Count > 0 ? null : _ack;
        if (reports.Count + acks.Count == 0)
        {
            return;
        }

        var outcome = await ApplyAsync(_spoolId, reports, acks);
        if (outcome is { IsRefused: false })
        {
            _sent.AddRange(reports.Select(report => (_spoolId, report)));
            _spool.RemoveAll(report => report.Sequence <= outcome.Value.Applied);
        }
        else if (outcome.Problem!.Type == ProblemTypes.StatementRequired)
        {
            IsClaimed = false;
        }
        else
        {
            Assert.Equal(ProblemTypes.SpoolGap, outcome.Problem.Type);
            (IsClaimed, _isForgotten) = (false, true);
        }
    }

    /// <summary>The store went back: what it took before may be new to it.</summary>
    public void ForgetSent() => _sent.Clear();

    /// <summary>A report arrives once more.</summary>
    /// <returns>Whether there was one.</returns>
    public async Task<bool> ReplayAsync(int number)
    {
        if (!Talks || _sent.Count == 0)
        {
            return false;
        }

        var (spoolId, report) = _sent[(number * 7) % _sent.Count];
        var outcome = await ApplyAsync(spoolId, [report], []);
        return !outcome.IsRefused && outcome.Value.Applied >= report.Sequence;
    }

    private Task<Outcome<ReportsResult>> ApplyAsync(string spoolId, IReadOnlyList<AgentReport> reports, IReadOnlyList<GateAck> acks)
    {
        var request = new ReportsRequest(caller.Incarnation, spoolId, reports, acks);
        return _writer.ExecuteAsync(scope => ReportCommand.ApplyAsync(scope, Name, request, Name), CancellationToken.None);
    }

    private async Task<(bool IsTaken, DesiredVm? View)> ReadAsync()
    {
        if (!Talks)
        {
            return (false, null);
        }

        await using var snapshot = await services.GetRequiredService<StoreContexts>().OpenSnapshotAsync(CancellationToken.None);
        var row = await snapshot.Db.Hosts.SingleOrDefaultAsync(host => host.Id == Name);
        if (Admission.Judge(row, caller.Incarnation, snapshot.Revision) is { } refused)
        {
            Assert.Equal(ProblemTypes.StatementRequired, refused);
            IsClaimed = false;
            return (false, null);
        }

        var found = await DesiredReader.FindAsync(snapshot, Name, vm, CancellationToken.None);
        return (true, found is null ? null : await services.GetRequiredService<DesiredReader>().ReadAsync(snapshot, found, Name, CancellationToken.None));
    }

    private void Adopt(DesiredVm? view)
    {
        if (view is null)
        {
            Desired = null;
        }
        else if (DesiredRules.Judge(Desired, view, _promised) == DesiredVerdict.Adopt)
        {
            Desired = DesiredRules.Take(Desired, view);
        }
    }

    private bool VmmOfRecordLives => Vmm is { IsAlive: true } present && Record.Vmm == present.Identity;

    private static PageKey Page(long frame) => new(frame, FrameMath.FrameShift);

    private void Append(AgentReport report) => _spool.Add(report with { Sequence = ++_sequence });

    private AgentReport Report(string kind, long memoryInstance, string? migration, long? epoch) => new(
        0, kind, vm, memoryInstance, 0, null, null, null, epoch, DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch, 1, null, null, null, null, null, migration);

    /// <summary>A write to disk, before which the agent may die.</summary>
    private void Disk(Action write)
    {
        if (_fuse-- == 0)
        {
            throw new AgentDied();
        }

        write();
    }

    private sealed class AgentDied : Exception;
}
