using Fleet.Api.Migrations;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.Data.Writing;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests.Model;

/// <summary>
/// One VM's life at the gate: does each step to the control plane and to a small model, and compares the two. Agents say here whatever the
/// protocol lets them say, true or not: what the control plane makes of it is all that counts.
/// </summary>
internal sealed partial class GateModel
{
    private readonly IServiceProvider _services;
    private readonly GateWorld _world;
    private readonly TestAgent[] _agents;
    private readonly string _vm;
    private readonly Dictionary<string, string> _spools = [];
    private readonly Dictionary<string, long> _sequences = [];
    private readonly List<(string Host, AgentReport Report)> _sent = [];

    /// <summary>The memory instances in which each host held the VM.</summary>
    private readonly Dictionary<string, HashSet<long>> _held = [];
    private readonly HashSet<string> _online = ["host-a", "host-b", "host-c"];
    private readonly SortedSet<long> _set = [];
    private readonly List<GateAck> _acks = [];
    private readonly List<string> _ids = [];
    private Moving? _now;
    private string? _owner = "host-a";
    private long _epoch;
    private long _oldEpoch;
    private long _generation;
    private long _memory;
    private long _oldMemory;
    private bool _resetWanted;
    private bool _moves;
    private bool _newGeneration;

    /// <summary>Another life of the memory began in this step.</summary>
    private bool _anew;

    private GateModel(GateWorld world, string vm)
    {
        (_world, _services, _vm) = (world, world.Api.Services, vm);
        _agents = [world.A, world.B, world.C];
    }

    public GateCounts Counts { get; } = new();

    private string LastId => _ids.Count > 0 ? _ids[^1] : $"{_vm}-m0";

    private VmLifeCommands Life => _services.GetRequiredService<VmLifeCommands>();

    public static async Task<GateModel> StartAsync(GateWorld world, string vm)
    {
        var model = new GateModel(world, vm);
        foreach (var agent in model._agents)
        {
            await agent.ClaimAsync(boot: RestoreWorld.BootOf(agent));
            if (agent.Claim.StatementRequired)
            {
                await agent.StateAsync();
            }

            model._stated.Add(agent.Host);
            model._spools[agent.Host] = Guid.NewGuid().ToString("N");
            model._held[agent.Host] = [];
        }

        var resource = await world.Api.Admin.CreateVmAsync(vm, "host-a");
        (model._epoch, model._generation, model._memory) = (resource.PlacementEpoch, resource.Generation, resource.MemoryInstance);
        (model._oldEpoch, model._oldMemory) = (resource.PlacementEpoch - 1, resource.MemoryInstance - 1);
        model._held["host-a"].Add(resource.MemoryInstance);
        return model;
    }

    public async Task StepAsync(GateStep step)
    {
        var before = _set.ToList();
        (_moves, _newGeneration, _anew) = (false, false, false);
        await DoAsync(step, _agents[step.Host]);
        await CheckAsync(step, before);
    }

    private Task DoAsync(GateStep step, TestAgent agent) => step.Kind switch
    {
        GateStepKind.Progress => ProgressAsync(step),
        GateStepKind.Create => CreateAsync(agent.Host),
        GateStepKind.Strike => StrikeAsync(step),
        GateStepKind.Switchover => SwitchoverAsync(isFenced: step.Variant == 0),
        GateStepKind.Seal => SealAsync(agent, step.Number != 0, step.Variant != 0, Instance(step.Variant), step.Variant == 5 ? step.Number : null),
        GateStepKind.Ack => AckAsync(step),
        GateStepKind.Race => RaceAsync(agent, step.Number),
        GateStepKind.Lifted => LiftedAsync(agent, step.Variant != 0),
        GateStepKind.Abort => AbortAsync(isFenced: step.Variant == 0),
        GateStepKind.Renounce => RenounceAsync(agent, step.Variant != 0),
        GateStepKind.Complete => CompleteAsync(),
        GateStepKind.Expire => ExpireAsync(),
        GateStepKind.Claim => ClaimAsync(agent),
        GateStepKind.Add => AddAsync(step.Number),
        GateStepKind.Clear => ClearAsync(step.Number),
        GateStepKind.Replay => ReplayAsync(step.Number),
        GateStepKind.Park => ParkAsync(isFenced: step.Variant == 0),
        GateStepKind.Reset => ResetAsync(),
        GateStepKind.Attest => AttestAsync(agent, isPresent: step.Variant != 0),
        GateStepKind.Rebuild => RebuildAsync(agent.Host),
        GateStepKind.Restore => RestoreAsync(agent),
        GateStepKind.State => StateAsync(agent, step),
        GateStepKind.Fence => FenceAsync(agent.Host),
        GateStepKind.Release => ReleaseAsync(agent.Host),
        _ => throw new InvalidOperationException($"{step.Kind} is not a step"),
    };

    private Task ProgressAsync(GateStep step) => _now switch
    {
        _ when _quarantine is not null => StateNextAsync(step),
        null when _resetWanted => AttestAsync(Agent(_owner!), isPresent: true),
        null => CreateAsync(_owner == "host-a" ? "host-b" : "host-a"),
        { State: MigrationStates.Preparing } => SwitchoverAsync(isFenced: false),
        { State: MigrationStates.Switching, IsSealed: false, Source: { } source, Target: var target } => SealAsync(Agent(source), true, true, target is null ? null : "boot:1:1", step.Variant > 2 ? step.Number : null),
        { State: MigrationStates.Switching, Target: { } target } => SendAckAsync(Agent(target), Fresh(_now.Seal ?? "boot:1:1"), isCurrent: true),
        { Lifted: false, Target: { } target } => LiftedAsync(Agent(target), true),
        _ => CompleteAsync(),
    };

    /// <summary>The VM's memory begins anew, with nothing poisoned in it.</summary>
    private void BeginAnew(string? owner)
    {
        _set.Clear();
        (_owner, _resetWanted, _moves, _anew) = (owner, false, true, true);
        Counts.Resets++;
    }

    private VmResource Resource => new(_vm, _owner, [], GateWorld.TargetAttach, _memory, _generation, _epoch, _set.Count, [], 0);

    private GateAck Fresh(string instance) => new(_vm, LastId, instance, _memory, _generation, Digest(), [.. _set.Select(frame => new PageKey(frame, 12))]);

    private string Digest() => PoisonDigest.Compute(_vm, _memory, _set.Select(frame => new PageKey(frame, 12)));

    private static string? Instance(int variant) => variant switch { 1 => "boot:2:2", 2 => null, _ => "boot:1:1" };

    private TestAgent Agent(string host) => _agents.Single(agent => agent.Host == host);

    private Task<T> WriteAsync<T>(Func<WriteScope, Task<T>> apply) =>
        _services.GetRequiredService<StoreWriter>().ExecuteAsync(apply, CancellationToken.None);
}

internal sealed class GateCounts
{
    public int Grants { get; set; }

    public int Parks { get; set; }

    public int Resets { get; set; }

    public int Quarantines { get; set; }

    public int Conflicts { get; set; }

    public void Add(GateCounts other) => (Grants, Parks, Resets, Quarantines, Conflicts) =
        (Grants + other.Grants, Parks + other.Parks, Resets + other.Resets, Quarantines + other.Quarantines, Conflicts + other.Conflicts);

    public override string ToString() =>
        $"{Grants} grants, {Parks} parks, {Resets} new lives of the memory, {Quarantines} quarantines ended, {Conflicts} that statements could not end";
}
