using Fleet.Api.Agents;
using Fleet.Api.Lists;
using Fleet.Api.Migrations;
using Fleet.Api.Pages;
using Fleet.Api.Problems;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests.Support;

public enum GateStepKind
{
    Progress,
    Create,
    Strike,
    Switchover,
    Seal,
    Ack,
    Lifted,
    Abort,
    Renounce,
    Complete,
    Expire,
    Claim,
    Add,
    Clear,
    Replay,
}

public sealed record GateStep(GateStepKind Kind, int Host, int Number, int Variant);

/// <summary>One VM's life at the gate: does each step to the control plane and to a small model, and compares the two.</summary>
internal sealed class GateModel
{
    private readonly IServiceProvider _services;
    private readonly GateWorld _world;
    private readonly TestAgent[] _agents;
    private readonly string _vm;
    private readonly Dictionary<string, string> _spools = [];
    private readonly Dictionary<string, long> _sequences = [];
    private readonly List<(string Host, AgentReport Report)> _sent = [];
    private readonly HashSet<string> _placed = ["host-a"];
    private readonly HashSet<string> _online = ["host-a", "host-b", "host-c"];
    private readonly SortedSet<long> _set = [];
    private readonly List<GateAck> _acks = [];
    private Moving? _now;
    private string _owner = "host-a";
    private long _epoch;
    private long _oldEpoch;
    private long _generation;
    private long _memory;
    private int _migrations;
    private bool _moves;

    private GateModel(GateWorld world, string vm)
    {
        (_world, _services, _vm) = (world, world.Api.Services, vm);
        _agents = [world.A, world.B, world.C];
    }

    public int Grants { get; private set; }

    private string LastId => $"{_vm}-m{_migrations}";

    public static async Task<GateModel> StartAsync(GateWorld world, string vm)
    {
        var model = new GateModel(world, vm);
        var resource = await world.Api.Admin.CreateVmAsync(vm, "host-a");
        (model._epoch, model._generation, model._memory) = (resource.PlacementEpoch, resource.Generation, resource.MemoryInstance);
        model._oldEpoch = resource.PlacementEpoch - 1;
        foreach (var agent in model._agents)
        {
            await agent.ClaimAsync();
            model._spools[agent.Host] = Guid.NewGuid().ToString("N");
        }

        return model;
    }

    public async Task StepAsync(GateStep step)
    {
        var before = _set.ToList();
        _moves = false;
        await DoAsync(step);
        await CheckAsync(step, before);
    }

    private Task DoAsync(GateStep step) => step.Kind switch
    {
        GateStepKind.Progress => ProgressAsync(),
        GateStepKind.Create => CreateAsync(_agents[step.Host].Host),
        GateStepKind.Strike => StrikeAsync(step),
        GateStepKind.Switchover => SwitchoverAsync(isFenced: step.Variant == 0),
        GateStepKind.Seal => SealAsync(_agents[step.Host], step.Number != 0, step.Variant != 0, Instance(step.Variant)),
        GateStepKind.Ack => AckAsync(step),
        GateStepKind.Lifted => LiftedAsync(_agents[step.Host], step.Variant != 0),
        GateStepKind.Abort => AbortAsync(isFenced: step.Variant == 0),
        GateStepKind.Renounce => RenounceAsync(_agents[step.Host], step.Variant != 0),
        GateStepKind.Complete => CompleteAsync(),
        GateStepKind.Expire => ExpireAsync(),
        GateStepKind.Claim => ClaimAsync(_agents[step.Host]),
        GateStepKind.Add => AddAsync(step.Number),
        GateStepKind.Clear => ClearAsync(step.Number),
        _ => ReplayAsync(step.Number),
    };

    private Task ProgressAsync() => _now switch
    {
        null => CreateAsync(_owner == "host-a" ? "host-b" : "host-a"),
        { State: MigrationStates.Preparing } => SwitchoverAsync(isFenced: false),
        { State: MigrationStates.Switching, Seal: null } => SealAsync(Agent(_now.Source), true, true, "boot:1:1"),
        { State: MigrationStates.Switching } => SendAckAsync(Agent(_now.Target), Fresh(_now.Seal ?? "boot:1:1"), isCurrent: true),
        { Lifted: false } => LiftedAsync(Agent(_now.Target), true),
        _ => CompleteAsync(),
    };

    private async Task CreateAsync(string target)
    {
        var id = $"{_vm}-m{_migrations + 1}";
        var request = new MigrationRequest(_vm, target, GateWorld.TargetAttach);
        var outcome = await WriteAsync(scope => _services.GetRequiredService<MigrationCommands>().PutAsync(scope, id, request, "test", TimeSpan.FromHours(1)));
        var allowed = _now is null && target != _owner;
        Assert.Equal(!allowed, outcome.IsRefused);
        if (allowed)
        {
            _migrations++;
            _now = new Moving(id, _owner, target);
        }
    }

    private async Task StrikeAsync(GateStep step)
    {
        var agent = _agents[step.Host];
        var origin = step.Variant switch { 0 => PoisonOrigins.Sealed, 1 => PoisonOrigins.Incoming, 2 => null, _ => PoisonOrigins.Held };
        var report = TestAgent.Poison(0, Resource, step.Number) with { Origin = origin };
        var code = await ReportAsync(agent, report);
        var isTarget = _now?.Target == agent.Host;
        var isAuthorised = _placed.Contains(agent.Host) || (isTarget && origin == PoisonOrigins.Incoming);
        Assert.Equal(isAuthorised ? null : "not-placed-here", code);
        if (!isAuthorised)
        {
            return;
        }

        if (_owner == agent.Host || origin is null or PoisonOrigins.Held)
        {
            _set.Add(step.Number);
        }
        else if (origin == PoisonOrigins.Incoming && isTarget && _now!.State == MigrationStates.Switching)
        {
            _now.Ack = null;
        }
    }

    private async Task SwitchoverAsync(bool isFenced)
    {
        var commands = _services.GetRequiredService<MigrationCommands>();
        var outcome = await WriteAsync(scope => commands.SwitchoverAsync(scope, LastId, new SwitchoverRequest(isFenced, "test"), "test", TimeSpan.FromSeconds(60)));
        if (_now is null || (isFenced && _now.State != MigrationStates.Granted && _online.Contains(_now.Source)))
        {
            Assert.True(outcome.IsRefused || _migrations > 0);
            return;
        }

        Assert.False(outcome.IsRefused);
        if (_now.State == MigrationStates.Preparing)
        {
            _now.State = MigrationStates.Switching;
        }

        _now.IsFenced |= isFenced && _now.State == MigrationStates.Switching;
        TryGrant();
    }

    private async Task SealAsync(TestAgent agent, bool isLastMigration, bool isThisEpoch, string instance)
    {
        var id = isLastMigration ? LastId : $"{_vm}-m{_migrations - 1}";
        await ReportAsync(agent, GateWorld.Gate(AgentReport.Seal, Resource, id, isThisEpoch ? _epoch : _oldEpoch, instance));
        if (_now is { State: MigrationStates.Switching } && _now.Id == id && _now.Source == agent.Host && isThisEpoch)
        {
            _now.Seal = instance;
            TryGrant();
        }
    }

    private Task AckAsync(GateStep step)
    {
        var fresh = Fresh(step.Number == 0 ? "boot:2:2" : "boot:1:1");
        var ack = step.Variant switch
        {
            1 => fresh with { Generation = fresh.Generation - 1 },
            2 => fresh with { Digest = new string('0', 64) },
            4 => fresh with { Unservable = [new PageKey(step.Number, 12)] },
            5 when _acks.Count > 0 => _acks[step.Number % _acks.Count],
            _ => fresh,
        };
        return SendAckAsync(_agents[step.Host], ack, isCurrent: step.Variant != 3);
    }

    private async Task SendAckAsync(TestAgent agent, GateAck ack, bool isCurrent)
    {
        _acks.Add(ack);
        var incarnation = isCurrent ? agent.Incarnation : agent.Incarnation - 1;
        var request = new ReportsRequest(incarnation, _spools[agent.Host], [], [ack]);
        var outcome = await WriteAsync(scope => ReportCommand.ApplyAsync(scope, agent.Host, request, "test"));
        Assert.Equal(isCurrent, !outcome.IsRefused);
        if (isCurrent && _now is { State: MigrationStates.Switching } && _now.Id == ack.Migration && _now.Target == agent.Host)
        {
            _now.Ack = ack;
            _now.AckIncarnation = agent.Incarnation;
            TryGrant();
        }
    }

    private async Task LiftedAsync(TestAgent agent, bool isThisEpoch)
    {
        await ReportAsync(agent, GateWorld.Gate(AgentReport.Lifted, Resource, LastId, isThisEpoch ? _epoch : _oldEpoch));
        if (_now is { State: MigrationStates.Granted } && _now.Target == agent.Host && isThisEpoch)
        {
            _now.Lifted = true;
        }
    }

    private async Task RenounceAsync(TestAgent agent, bool isThisEpoch)
    {
        await ReportAsync(agent, GateWorld.Gate(AgentReport.Renounced, Resource, LastId, isThisEpoch ? _epoch : _oldEpoch));
        if (_now is { State: MigrationStates.Granted, Lifted: false } && _now.Target == agent.Host && isThisEpoch)
        {
            (_owner, _now, _moves) = (_now.Source, null, true);
        }
    }

    private async Task AbortAsync(bool isFenced)
    {
        var commands = _services.GetRequiredService<MigrationCommands>();
        await WriteAsync(scope => commands.AbortAsync(scope, LastId, new AbortRequest("test", isFenced), "test"));
        if (_now is null)
        {
            return;
        }

        if (_now.State != MigrationStates.Granted)
        {
            (_moves, _now) = (_now.State == MigrationStates.Switching, null);
        }
        else if (isFenced && !_now.Lifted && !_online.Contains(_now.Target))
        {
            (_owner, _now, _moves) = (_now.Source, null, true);
        }
    }

    private async Task CompleteAsync()
    {
        await WriteAsync(scope => MigrationCommands.CompleteAsync(scope, LastId, "test"));
        if (_now is { State: MigrationStates.Granted, Lifted: true })
        {
            _now = null;
        }
    }

    private async Task ExpireAsync()
    {
        _world.Time.Advance(TimeSpan.FromSeconds(61));
        _online.Clear();
        await WriteAsync(scope => MigrationCommands.ExpireAsync(scope, LastId));
        if (_now is { State: MigrationStates.Switching })
        {
            (_now, _moves) = (null, true);
        }
    }

    private async Task ClaimAsync(TestAgent agent)
    {
        await agent.ClaimAsync();
        _online.Add(agent.Host);
    }

    private async Task AddAsync(long frame)
    {
        var request = new AddPagesRequest([new PageReport(frame, 12)], null);
        Assert.False((await WriteAsync(scope => PageCommands.AddAsync(scope, _vm, request, "test"))).IsRefused);
        _set.Add(frame);
    }

    private async Task ClearAsync(long frame)
    {
        var outcome = await WriteAsync(scope => PageCommands.ClearAsync(scope, _vm, frame, "test", "test", IfMatch.Absent));
        var allowed = _now is null or { State: MigrationStates.Preparing } && _set.Contains(frame);
        Assert.Equal(!(allowed && _set.Contains(frame)), outcome.IsRefused);
        if (!outcome.IsRefused)
        {
            _set.Remove(frame);
        }
    }

    /// <summary>A report comes a second time, late: nothing changes (I5).</summary>
    private async Task ReplayAsync(int number)
    {
        if (_sent.Count > 0)
        {
            var (host, report) = _sent[(number * 7) % _sent.Count];
            var request = new ReportsRequest(Agent(host).Incarnation, _spools[host], [report]);
            Assert.False((await WriteAsync(scope => ReportCommand.ApplyAsync(scope, host, request, "test"))).IsRefused);
        }
    }

    /// <summary>The grant, as the model sees it: every condition of GATE.md at this moment.</summary>
    private void TryGrant()
    {
        if (_now is not { State: MigrationStates.Switching, Ack: { } ack } now)
        {
            return;
        }

        var isSealed = now.IsFenced || now.Seal == ack.VmmInstance;
        if (isSealed
            && now.AckIncarnation == Agent(now.Target).Incarnation
            && ack.MemoryInstance == _memory
            && ack.Generation == _generation
            && ack.Digest == Digest())
        {
            now.State = MigrationStates.Granted;
            (_owner, _moves) = (now.Target, true);
            _placed.Add(now.Target);
            _set.UnionWith(ack.Unservable.Select(page => page.Frame));
            Grants++;
        }
    }

    private async Task CheckAsync(GateStep step, List<long> before)
    {
        await using var db = _services.GetRequiredService<StoreContexts>().OpenReader();
        var vm = await db.Vms.SingleAsync(row => row.Id == _vm);
        var pages = await db.Pages.Where(row => row.Vm == _vm).OrderBy(row => row.Frame).Select(row => row.Frame).ToListAsync();
        var active = await db.Migrations.Where(MigrationRow.Active).Where(row => row.Vm == _vm).SingleOrDefaultAsync();
        var open = await db.Placements.Where(row => row.Vm == _vm && row.ToRevision == null).ToListAsync();
        var context = $"after {step}";
        Assert.True(vm.Host == _owner, $"I4: owner is {vm.Host}, not {_owner}, {context}");
        Assert.True(active?.State == _now?.State, $"state is {active?.State}, not {_now?.State}, {context}");
        Assert.True(pages.SequenceEqual(_set), $"I2: set is {string.Join(',', pages)}, not {string.Join(',', _set)}, {context}");
        Assert.True(vm.PlacementEpoch > _epoch == _moves && vm.PlacementEpoch >= _epoch, $"I3: epoch {_epoch} to {vm.PlacementEpoch}, moves {_moves}, {context}");
        Assert.True(vm.Generation > _generation == !before.SequenceEqual(_set) && vm.Generation >= _generation, $"I3: generation {_generation} to {vm.Generation}, {context}");
        Assert.True(open is [var placement] && placement.Host == _owner && placement.PlacementEpoch == vm.PlacementEpoch, $"placement history, {context}");
        Assert.True((active?.PermitEpoch is not null) == (_now?.State == MigrationStates.Granted), $"permit, {context}");
        Assert.True(active?.PermitEpoch is null || active.PermitEpoch == vm.PlacementEpoch, $"permit of another epoch, {context}");
        Assert.True(active?.Lifted == _now?.Lifted, $"lifted, {context}");
        if (_moves)
        {
            _oldEpoch = _epoch;
        }

        (_epoch, _generation) = (vm.PlacementEpoch, vm.Generation);
    }

    private async Task<string?> ReportAsync(TestAgent agent, AgentReport report)
    {
        var numbered = report with { Sequence = _sequences[agent.Host] = _sequences.GetValueOrDefault(agent.Host) + 1 };
        _sent.Add((agent.Host, numbered));
        var request = new ReportsRequest(agent.Incarnation, _spools[agent.Host], [numbered]);
        var outcome = await WriteAsync(scope => ReportCommand.ApplyAsync(scope, agent.Host, request, "test"));
        Assert.False(outcome.IsRefused);
        return outcome.Value.Rejected.SingleOrDefault()?.Code;
    }

    private VmResource Resource => new(_vm, _owner, [], GateWorld.TargetAttach, _memory, _generation, _epoch, _set.Count, [], 0);

    private GateAck Fresh(string instance) => new(_vm, LastId, instance, _memory, _generation, Digest(), [.. _set.Select(frame => new PageKey(frame, 12))]);

    private string Digest() => PoisonDigest.Compute(_vm, _memory, _set.Select(frame => new PageKey(frame, 12)));

    private static string Instance(int variant) => variant == 1 ? "boot:2:2" : "boot:1:1";

    private TestAgent Agent(string host) => _agents.Single(agent => agent.Host == host);

    private Task<T> WriteAsync<T>(Func<WriteScope, Task<T>> apply) =>
        _services.GetRequiredService<StoreWriter>().ExecuteAsync(apply, CancellationToken.None);

    private sealed class Moving(string id, string source, string target)
    {
        public string Id { get; } = id;

        public string Source { get; } = source;

        public string Target { get; } = target;

        public string State { get; set; } = MigrationStates.Preparing;

        /// <summary>The instance that a seal which counts named.</summary>
        public string? Seal { get; set; }

        public GateAck? Ack { get; set; }

        public long AckIncarnation { get; set; }

        public bool IsFenced { get; set; }

        public bool Lifted { get; set; }
    }
}
