using Fleet.Api.Migrations;
using Fleet.Api.Tests.Support;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests.Simulation;

/// <summary>What an orchestrator asks for.</summary>
internal sealed partial class SimulatedFleet
{
    private async Task CreateAsync(SimulatedHost target)
    {
        var request = new MigrationRequest(_vm, target.Name, GateWorld.TargetAttach);
        var id = $"{_vm}-m{++_migrations}";
        await WriteAsync(scope => _services.GetRequiredService<MigrationCommands>().PutAsync(scope, id, request, "test", TimeSpan.FromHours(1)));
    }

    /// <summary>From the source, whether it is paused or not, or from the file of a VM that is parked.</summary>
    private async Task StreamAsync()
    {
        if ((await StateAsync()).Migration is not { } migration)
        {
            return;
        }

        if (migration.TargetHost is null)
        {
            Save(migration);
        }
        else if (Host(migration.TargetHost).Vmm is { IsAlive: true, State: VmmStates.Incoming } target && target.IncomingFor == migration.Id)
        {
            if (migration.SourceHost is null && _image is { } image && image.MemoryInstance == target.MemoryInstance)
            {
                target.Load(image);
            }
            else if (migration.SourceHost is { } source && Host(source) is { Vmm: { IsAlive: true, State: VmmStates.Held or VmmStates.Running } from } host)
            {
                from.StreamTo(target, host.Desired?.Pages.Select(page => page.Frame) ?? []);
            }
        }
    }

    /// <summary>The parked guest's RAM, from a VMM that stands still.</summary>
    private void Save(MigrationRow park)
    {
        if (park.SourceHost is { } source && Host(source) is { Vmm: { IsAlive: true, State: VmmStates.Held } from } host)
        {
            _image = from.Save(host.Desired?.Pages.Select(page => page.Frame) ?? []);
        }
    }

    private async Task SwitchoverAsync()
    {
        if ((await StateAsync()).Migration is not { TargetHost: { } target } migration)
        {
            return;
        }

        // What the assertion says: dead, and not run since the stream ended.
        var isFenced = migration.SourceHost is { } source && !Host(source).IsPowered
            && Host(target).Vmm is { IsAlive: true, State: VmmStates.Loaded } vmm && vmm.IncomingFor == migration.Id && IsCurrent(vmm);
        var commands = _services.GetRequiredService<MigrationCommands>();
        await WriteAsync(scope => commands.SwitchoverAsync(scope, migration.Id, new SwitchoverRequest(isFenced, "test"), "test", TimeSpan.FromSeconds(60)));
    }

    private bool IsCurrent(SimulatedVmm vmm) => _guest.IsCurrent(vmm.Save(vmm.Undelivered));

    private async Task AbortAsync()
    {
        if ((await StateAsync()).Migration is { } migration)
        {
            // What the assertion says: dead, and it never lifted.
            var isFenced = migration is { State: MigrationStates.Granted, TargetHost: { } target }
                && !Host(target).IsPowered && Host(target).Record.Right != migration.PermitEpoch;
            var commands = _services.GetRequiredService<MigrationCommands>();
            await WriteAsync(scope => commands.AbortAsync(scope, migration.Id, new AbortRequest("test", isFenced), "test"));
        }
    }

    private async Task CompleteAsync()
    {
        if ((await StateAsync()).Migration is { State: MigrationStates.Granted } migration)
        {
            var outcome = await WriteAsync(scope => MigrationCommands.CompleteAsync(scope, migration.Id, "test"));
            if (!outcome.IsRefused && migration.SourceHost is { } source)
            {
                Host(source).KillVmm();
            }
        }
    }

    private async Task ExpireAsync()
    {
        _world.Time.Advance(TimeSpan.FromSeconds(61));
        if ((await StateAsync()).Migration is { } migration)
        {
            await WriteAsync(scope => MigrationCommands.ExpireAsync(scope, migration.Id));
        }
    }

    private async Task ParkAsync()
    {
        var (vm, _) = await StateAsync();
        var isFenced = vm.Host is { } owner && !Host(owner).IsPowered && _image is { } image && image.MemoryInstance == vm.MemoryInstance && _guest.IsCurrent(image);
        var commands = _services.GetRequiredService<VmLifeCommands>();
        await WriteAsync(scope => commands.ParkAsync(scope, _vm, new ParkRequest("test", isFenced), "test", TimeSpan.FromSeconds(60)));
    }

    private Task ResetAsync() => WriteAsync(scope => VmLifeCommands.ResetAsync(scope, _vm, new ResetRequest("test"), "test"));

    /// <summary>What the call says: the owner is dead, and no RAM of the VM is usable.</summary>
    private async Task<bool> RebuildAsync(SimulatedHost host)
    {
        var (vm, _) = await StateAsync();
        if (vm.Host is { } owner && Host(owner).IsPowered)
        {
            return false;
        }

        var commands = _services.GetRequiredService<VmLifeCommands>();
        var outcome = await WriteAsync(scope => commands.RebuildAsync(scope, _vm, new RebuildRequest(host.Name, "test"), "test"));
        return !outcome.IsRefused;
    }
}
