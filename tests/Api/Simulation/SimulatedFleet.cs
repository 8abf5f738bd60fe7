using Fleet.Api.Migrations;
using Fleet.Api.Tests.Support;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests.Simulation;

/// <summary>
/// One VM's life on three hosts: the control plane with its file, the agents' rules, and an orchestrator that may ask for anything at
/// any time, but asserts of a host only what is so (dead; not run since). After each step the invariants are looked at in the guest itself.
/// </summary>
internal sealed partial class SimulatedFleet : IDisposable
{
    private readonly GateWorld _world;
    private readonly IServiceProvider _services;
    private readonly string _vm;
    private readonly SimulatedGuest _guest = new();
    private readonly SimulatedHost[] _hosts;
    private readonly string _backup = Path.Combine(Path.GetTempPath(), $"fleet-{Guid.NewGuid():N}.db");
    private SavedRam? _image;
    private int _migrations;

    private SimulatedFleet(GateWorld world, string vm)
    {
        (_world, _services, _vm) = (world, world.Api.Services, vm);
        _hosts = [.. new[] { world.A, world.B, world.C }.Select(agent => new SimulatedHost(agent, _services, _guest, vm))];
    }

    public FleetCounts Counts { get; } = new();

    public static async Task<SimulatedFleet> StartAsync(GateWorld world, string vm)
    {
        var fleet = new SimulatedFleet(world, vm);
        foreach (var host in fleet._hosts)
        {
            await host.TickAsync();
        }

        await world.Api.Admin.CreateVmAsync(vm, "host-a");
        await fleet._hosts[0].TickAsync();
        fleet._hosts[0].StartVmm(isIncoming: false);
        await fleet._hosts[0].TickAsync();
        Assert.True(fleet._hosts[0].Vmm!.IsRunning);
        await fleet.CheckAsync("the start", isRemoval: false);
        return fleet;
    }

    public async Task StepAsync(FleetStep step)
    {
        var isRemoval = await DoAsync(step, _hosts[step.Host]);
        await CheckAsync(step.ToString(), isRemoval);
    }

    /// <returns>Whether pages may have left the set, or the store gone back: by a clear, a new life of the memory, or a restore.</returns>
    private async Task<bool> DoAsync(FleetStep step, SimulatedHost host)
    {
        var variant = step.Variant;
        switch (step.Kind)
        {
            case FleetStepKind.Progress:
                await ProgressAsync(step);
                break;
            case FleetStepKind.Tick:
                await host.TickAsync();
                break;
            case FleetStepKind.Look:
                host.Look(-1);
                break;
            case FleetStepKind.LookAndDie:
                host.Look(variant);
                break;
            case FleetStepKind.Fetch:
                await host.FetchAsync();
                break;
            case FleetStepKind.FetchForLater:
                await host.FetchForLaterAsync();
                break;
            case FleetStepKind.AdoptDelayed:
                host.AdoptDelayed(variant);
                break;
            case FleetStepKind.Send:
                await host.SendAsync(variant < 3 ? variant : int.MaxValue);
                break;
            case FleetStepKind.Replay:
                await ReplayAsync(host, variant);
                break;
            case FleetStepKind.Crash:
                host.Crash();
                break;
            case FleetStepKind.StartAgent:
                await host.StartAgentAsync(variant < 3 ? variant : -1);
                break;
            case FleetStepKind.KillVmm:
                host.KillVmm();
                break;
            case FleetStepKind.StartVmm:
                host.StartVmm(isIncoming: variant != 0);
                break;
            case FleetStepKind.Power:
                Power(host);
                break;
            case FleetStepKind.Write:
                Write(step.Frame);
                break;
            case FleetStepKind.Strike:
                Strike(host, step.Frame, isDetected: variant != 0);
                break;
            case FleetStepKind.Add:
                await AddAsync(step.Frame);
                break;
            case FleetStepKind.Clear:
                return await ClearAsync(step.Frame);
            case FleetStepKind.Create:
                await CreateAsync(host);
                break;
            case FleetStepKind.Switchover:
                await SwitchoverAsync();
                break;
            case FleetStepKind.Pause:
                host.Pause();
                break;
            case FleetStepKind.Stream:
                await StreamAsync();
                break;
            case FleetStepKind.Abort:
                await AbortAsync();
                break;
            case FleetStepKind.Complete:
                await CompleteAsync();
                break;
            case FleetStepKind.Expire:
                await ExpireAsync();
                break;
            case FleetStepKind.Park:
                await ParkAsync();
                break;
            case FleetStepKind.Reset:
                await ResetAsync();
                return true;
            case FleetStepKind.Rebuild:
                return await RebuildAsync(host);
            case FleetStepKind.Backup:
                Backup();
                break;
            case FleetStepKind.Restore:
                return await RestoreAsync(isByVerb: variant != 0);
            default:
                throw new InvalidOperationException($"{step.Kind} is not a step");
        }

        return false;
    }

    private SimulatedHost Host(string name) => _hosts.Single(host => host.Name == name);

    private SimulatedHost? Running => _hosts.SingleOrDefault(host => host.Vmm is { IsRunning: true });

    private async Task<(VmRow Vm, MigrationRow? Migration)> StateAsync()
    {
        await using var db = _services.GetRequiredService<StoreContexts>().OpenReader();
        return (await db.Vms.SingleAsync(row => row.Id == _vm), await db.Migrations.Where(MigrationRow.Active).SingleOrDefaultAsync(row => row.Vm == _vm));
    }

    /// <summary>What an orchestrator and agents that work do next.</summary>
    private async Task ProgressAsync(FleetStep step)
    {
        foreach (var host in _hosts)
        {
            await host.TickAsync();
        }

        var (vm, migration) = await StateAsync();
        if (vm.Quarantined)
        {
            return;
        }

        switch (migration?.State)
        {
            case null when vm.Host is not null && Host(vm.Host).Vmm is not { IsAlive: true }:
                Host(vm.Host).StartVmm(isIncoming: false);
                break;
            case null:
                await CreateAsync(_hosts[step.Host]);
                break;
            case MigrationStates.Preparing when Host(migration.TargetHost!).Vmm is not { IsAlive: true }:
                Host(migration.TargetHost!).StartVmm(isIncoming: true);
                break;
            case MigrationStates.Preparing when migration.SourceHost is { } source && Host(source).Vmm is { IsRunning: true } running:
                running.Hold();
                await SwitchoverAsync();
                break;
            case MigrationStates.Preparing:
                await SwitchoverAsync();
                break;
            case MigrationStates.Switching:
                await StreamAsync();
                await SwitchoverAsync();
                break;
            default:
                await CompleteAsync();
                break;
        }
    }

    private Task<T> WriteAsync<T>(Func<WriteScope, Task<T>> apply) =>
        _services.GetRequiredService<StoreWriter>().ExecuteAsync(apply, CancellationToken.None);

    public void Dispose()
    {
        SqliteConnection.ClearAllPools();
        File.Delete(_backup);
    }
}
