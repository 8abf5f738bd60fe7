using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests.Simulation;

/// <summary>The invariants, after each step.</summary>
internal sealed partial class SimulatedFleet
{
    /// <summary>The set at each generation that was seen in the store.</summary>
    private readonly Dictionary<long, List<long>> _generations = [];

    /// <summary>The set at the moment in which each epoch began: no guest runs under it with one of these open.</summary>
    private readonly Dictionary<long, List<long>> _epochs = [];
    private List<long> _set = [];
    private long _generation;
    private long _epoch;

    private async Task CheckAsync(string step, bool isRemoval)
    {
        CheckGuests(step);
        await CheckStoreAsync(step, isRemoval);
    }

    private void CheckGuests(string step)
    {
        var running = _hosts.Where(host => host.Vmm is { IsRunning: true }).ToList();
        Assert.True(running.Count <= 1, $"I4: the guest runs on {string.Join(" and ", running.Select(host => host.Name))}, after {step}");
        foreach (var host in running)
        {
            var vmm = host.Vmm!;
            _image = null;
            var wrong = _guest.Wrong(vmm.MemoryInstance, vmm.Ram, vmm.IsMarked).ToList();
            Assert.True(wrong.Count == 0, $"IT: the guest on {host.Name} reads what it did not write last, frames {string.Join(',', wrong)}, after {step}");
            var granted = _epochs.GetValueOrDefault(host.Record.Right, []).Intersect(_set);
            var open = _generations.GetValueOrDefault(host.Verified, []).Union(granted).Where(frame => !vmm.IsMarked(frame)).ToList();
            Assert.True(open.Count == 0, $"I1: frames {string.Join(',', open)} are open on {host.Name}, after {step}");
        }
    }

    private async Task CheckStoreAsync(string step, bool isRemoval)
    {
        await using var db = _services.GetRequiredService<StoreContexts>().OpenReader();
        var vm = await db.Vms.SingleAsync(row => row.Id == _vm);
        var pages = await db.Pages.Where(row => row.Vm == _vm).OrderBy(row => row.Frame).Select(row => row.Frame).ToListAsync();
        var open = await db.Placements.Where(row => row.Vm == _vm && row.ToRevision == null).ToListAsync();
        var isAnew = vm.MemoryInstance == vm.Generation && vm.Generation != _generation;
        Assert.True(isRemoval || isAnew || !_set.Except(pages).Any(), $"I2: the set was {string.Join(',', _set)} and is {string.Join(',', pages)}, after {step}");
        Assert.True(isRemoval || vm.Generation >= _generation, $"I3: generation {_generation} became {vm.Generation}, after {step}");
        Assert.True(isRemoval || vm.Generation > _generation || pages.SequenceEqual(_set), $"I3: another set at generation {_generation}, after {step}");
        Assert.True(isRemoval || vm.PlacementEpoch >= _epoch, $"I3: epoch {_epoch} became {vm.PlacementEpoch}, after {step}");
        var owns = vm.Host is null ? open.Count == 0 : open is [var placement] && placement.Host == vm.Host && placement.PlacementEpoch == vm.PlacementEpoch;
        Assert.True(owns, $"I4: owner {vm.Host} and history disagree, after {step}");
        CheckGrant(await db.Migrations.Where(MigrationRow.Active).SingleOrDefaultAsync(row => row.Vm == _vm), vm, step);
        if (vm.PlacementEpoch != _epoch)
        {
            _epochs[vm.PlacementEpoch] = pages;
        }

        Counts.Resets += isAnew ? 1 : 0;
        Counts.Parks += vm.Host is null && vm.PlacementEpoch != _epoch ? 1 : 0;
        (_set, _generation, _epoch) = (pages, vm.Generation, vm.PlacementEpoch);
        _generations[vm.Generation] = pages;
    }

    private static void CheckGrant(MigrationRow? migration, VmRow vm, string step) =>
        Assert.True(migration?.PermitEpoch is null || (migration.PermitEpoch == vm.PlacementEpoch && migration.TargetHost == vm.Host), $"I4: permit of epoch {migration?.PermitEpoch} beside epoch {vm.PlacementEpoch}, after {step}");
}
