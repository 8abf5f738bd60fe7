using Fleet.Data;
using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Vms;

/// <summary>The hosts whose agents have to enforce a VM's set.</summary>
internal static class ConcernedHosts
{
    /// <summary>The owner first, then the source and the target of an active migration.</summary>
    public static async Task<IReadOnlyList<string>> OfAsync(FleetDbContext db, VmRow vm, CancellationToken cancellationToken)
    {
        var moving = await db.Migrations.Where(MigrationRow.Active)
            .Where(row => row.Vm == vm.Id)
            .Select(row => new { row.SourceHost, row.TargetHost })
            .SingleOrDefaultAsync(cancellationToken);
        return [.. new[] { vm.Host, moving?.SourceHost, moving?.TargetHost }.OfType<string>().Distinct()];
    }
}
