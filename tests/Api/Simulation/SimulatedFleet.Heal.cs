using Fleet.Api.Agents;
using Fleet.Api.Restore;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests.Simulation;

/// <summary>
/// GATE.md, "EF": from every state, some sequence of calls that the API offers leads to exactly one running, fully armed guest. This is the
/// sequence, as an operator would find it.
/// </summary>
internal sealed partial class SimulatedFleet
{
    private const int MostRounds = 30;

    /// <param name="withRepairs">Hosts without power get it back; else they stay dead, but for one.</param>
    public async Task HealAsync(bool withRepairs)
    {
        foreach (var host in _hosts.Where(host => !host.IsPowered).Skip(withRepairs || _hosts.Any(host => host.IsPowered) ? 0 : 1))
        {
            if (withRepairs || _hosts.All(other => !other.IsPowered))
            {
                host.PowerOn();
            }
        }

        for (var round = 0; round < MostRounds; round++)
        {
            await SettleAsync(round);
            var (vm, migration) = await StateAsync();
            if (Running is { } running && migration is null && vm is { Quarantined: false, ResetWanted: false } && vm.Host == running.Name && running.Verified == vm.Generation)
            {
                Counts.Lifts += _hosts.Sum(host => host.Lifts);
                return;
            }

            await RepairAsync(vm, migration);
            await CheckAsync($"round {round} of the repair", isRemoval: true);
        }

        var (last, active) = await StateAsync();
        Assert.Fail($"EF: no guest runs after {MostRounds} rounds: owner {last.Host}, quarantine {last.QuarantineReason}, migration {active?.State}; "
            + string.Join("; ", _hosts.Select(host => $"{host.Name} powered {host.IsPowered}, VMM {host.Vmm?.View(false)} alive {host.Vmm?.IsAlive}, {host.Record}, sees {host.Desired} {host.Desired?.Migration}")));
    }

    /// <summary>Until all agents have nothing more to say.</summary>
    private async Task SettleAsync(int round)
    {
        var (before, quiet) = (-1L, 0);
        while (quiet < 2)
        {
            foreach (var host in _hosts)
            {
                await host.TickAsync();
                CheckGuests($"a tick of {host.Name} in round {round} of the repair");
            }

            var revision = await RevisionAsync();
            (before, quiet) = (revision, revision == before ? quiet + 1 : 0);
        }

        await CheckStoreAsync($"the ticks of round {round} of the repair", isRemoval: false);
    }

    private async Task RepairAsync(VmRow vm, MigrationRow? migration)
    {
        if (vm.Quarantined)
        {
            await EndQuarantineAsync(vm);
        }
        else if (migration is { State: MigrationStates.Granted, Lifted: true })
        {
            await CompleteAsync();
        }
        else if (migration is not null)
        {
            await ExpireAsync();
            await AbortAsync();
        }
        else if (vm.Host is null || !Host(vm.Host).IsPowered)
        {
            await ExpireAsync();
            var host = _hosts.First(host => host.IsPowered);
            host.KillVmm();
            await RebuildAsync(host);
        }
        else if (!vm.ResetWanted && Host(vm.Host) is { Vmm: { IsAlive: true, StreamTarget: not null }, Record.IsOpen: true } streamed && streamed.Record.Vmm == streamed.Vmm.Identity)
        {
            // Latched for a switchover that the store has forgotten: its agent lets it run under another epoch only, and a switchover that is aborted is one.
            await CreateAsync(_hosts.First(host => host != streamed));
            await SwitchoverAsync();
            await AbortAsync();
        }
        else if (vm.ResetWanted || Host(vm.Host).Vmm is { IsAlive: true })
        {
            // It has a VMM, and yet no guest runs in it: its RAM is of no use.
            var source = Host(vm.Host);
            var isLost = vm.ResetWanted || source.Record.Vmm != source.Vmm!.Identity || source.Vmm.MemoryInstance != vm.MemoryInstance || !IsCurrent(source.Vmm);
            Assert.True(isLost, $"EF: {vm.Host} has the guest with all its memory, and does not let it run: {source.Vmm?.View(false)} {source.Record}");
            source.KillVmm();
            await ResetAsync();
        }
        else if (Host(vm.Host) is var owner && owner.Record.MemoryInstance != vm.MemoryInstance && vm.PlacementEpoch == vm.MemoryInstance)
        {
            owner.StartVmm(isIncoming: false);
        }
        else
        {
            await ResetAsync();
        }
    }

    private async Task EndQuarantineAsync(VmRow vm)
    {
        await ExpireAsync();
        foreach (var host in _hosts.Where(host => !host.IsPowered))
        {
            await WriteAsync(scope => OverrideCommands.FenceAsync(scope, host.Name, "test", "test", _services.GetRequiredService<StatusBoard>()));
        }

        if ((await StateAsync()).Vm is { Quarantined: true, QuarantineReason: not QuarantineReasons.AwaitingStatements })
        {
            // The operator ends every process that might still hold RAM of the VM, and has it begin again.
            foreach (var host in _hosts)
            {
                host.KillVmm();
                await host.TickAsync();
            }

            await WriteAsync(scope => OverrideCommands.ReleaseAsync(scope, _vm, _hosts.First(host => host.IsPowered).Name, "test", "test"));
        }
    }
}
