using Fleet.Contracts.Migrations;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests.Model;

/// <summary>The store against the model, after each step.</summary>
internal sealed partial class GateModel
{
    private async Task CheckAsync(GateStep step, List<long> before)
    {
        await using var db = _services.GetRequiredService<StoreContexts>().OpenReader();
        var vm = await db.Vms.SingleAsync(row => row.Id == _vm);
        var pages = await db.Pages.Where(row => row.Vm == _vm).OrderBy(row => row.Frame).Select(row => row.Frame).ToListAsync();
        var active = await db.Migrations.Where(MigrationRow.Active).Where(row => row.Vm == _vm).SingleOrDefaultAsync();
        var open = await db.Placements.Where(row => row.Vm == _vm && row.ToRevision == null).ToListAsync();
        var context = $"after {step}";
        Assert.True(vm.Host == _owner, $"I4: owner is {vm.Host}, not {_owner}, {context}");
        Assert.True(vm.Quarantined == _quarantine is not null && vm.QuarantineReason == _quarantine, $"quarantine is {vm.QuarantineReason}, not {_quarantine}, {context}");
        Assert.True(vm.ResetWanted == _resetWanted, $"reset wanted is {vm.ResetWanted}, {context}");
        Assert.True(active?.State == _now?.State && active?.Id == _now?.Id, $"state is {active?.State}, not {_now?.State}, {context}");
        Assert.True(pages.SequenceEqual(_set), $"I2: set is {string.Join(',', pages)}, not {string.Join(',', _set)}, {context}");
        Assert.True(vm.PlacementEpoch > _epoch == _moves && vm.PlacementEpoch >= _epoch, $"I3: epoch {_epoch} to {vm.PlacementEpoch}, moves {_moves}, {context}");
        var changes = _newGeneration || _anew || !before.SequenceEqual(_set);
        Assert.True(vm.Generation > _generation == changes && vm.Generation >= _generation, $"I3: generation {_generation} to {vm.Generation}, {context}");
        Assert.True(vm.MemoryInstance > _memory == _anew && vm.MemoryInstance >= _memory, $"I3: memory instance {_memory} to {vm.MemoryInstance}, {context}");
        var isPlaced = vm.Host is null ? open.Count == 0 : open is [var placement] && placement.Host == vm.Host && placement.PlacementEpoch == vm.PlacementEpoch;
        Assert.True(isPlaced, $"placement history, {context}");
        Assert.True((active?.PermitEpoch is not null) == (_now?.State == MigrationStates.Granted), $"permit, {context}");
        Assert.True(active?.PermitEpoch is null || active.PermitEpoch == vm.PlacementEpoch, $"permit of another epoch, {context}");
        Assert.True(active?.Lifted == _now?.Lifted, $"lifted, {context}");
        Follow(vm);
    }

    private void Follow(VmRow vm)
    {
        _oldEpoch = _moves ? _epoch : _oldEpoch;
        _oldMemory = _anew ? _memory : _oldMemory;
        (_epoch, _generation, _memory) = (vm.PlacementEpoch, vm.Generation, vm.MemoryInstance);
        if (_moves && _owner is not null)
        {
            _held[_owner].Add(_memory);
        }
    }
}
