using Fleet.Api.Problems;
using Fleet.Data;
using Fleet.Data.Entities;

namespace Fleet.Api.Migrations;

/// <summary>Keeps what the gate is about to decide upon from changing under it.</summary>
internal static class MigrationGuard
{
    /// <summary>Why pages may not be cleared nor the VM redefined or deleted; null when they may. Preparing does not bind.</summary>
    public static async Task<ProblemType?> RefuseAsync(FleetDbContext db, VmRow vm) =>
        vm.Quarantined ? ProblemTypes.Quarantined
        : await MigrationCommands.FindActiveAsync(db, vm.Id) is { IsBinding: true } ? ProblemTypes.MigrationSwitching
        : null;
}
