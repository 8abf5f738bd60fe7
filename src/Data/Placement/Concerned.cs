using Fleet.Contracts;
using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Data.Placement;

/// <summary>
/// Whom a VM concerns besides its owner: the one rule for what a host may see, and for whom a change is pushed to. The source and the
/// target of its active migration. After a restore from backup also who stated to hold it: while it is quarantined, and where a live guest
/// was stated. And from whom an override took it: if the host was not dead after all, its agent learns that it must stop the guest (GATE.md, "Fence").
/// </summary>
public static class Concerned
{
    public static IQueryable<MigrationRow> Moving(FleetDbContext db) => db.Migrations.Where(MigrationRow.Active);

    /// <summary>Of the present store epoch: a new one begins without any.</summary>
    public static IQueryable<StatementRow> Stated(FleetDbContext db) =>
        db.Statements.Where(row => row.Live || db.Vms.Any(vm => vm.Id == row.Vm && vm.Quarantined));

    public static IQueryable<PlacementRow> Fenced(FleetDbContext db) => db.Placements.Where(row => row.Fenced);

    /// <summary>Adds the hosts that changed VMs concern, with one query for all.</summary>
    /// <param name="revision">The newest; before the first restore there are no statements to ask for.</param>
    internal static async Task AddHostsAsync(FleetDbContext db, long revision, string[] vms, HashSet<Touched> touched)
    {
        if (vms.Length == 0)
        {
            return;
        }

        var moving = Moving(db).Where(row => EF.Parameter(vms).Contains(row.Vm));
        var hosts = moving.Select(row => new { row.Vm, Host = row.SourceHost })
            .Concat(moving.Select(row => new { row.Vm, Host = row.TargetHost }))
            .Concat(Fenced(db).Where(row => EF.Parameter(vms).Contains(row.Vm)).Select(row => new { row.Vm, Host = (string?)row.Host }));
        if (StoreEpochs.Of(revision) > 0)
        {
            hosts = hosts.Concat(Stated(db).Where(row => EF.Parameter(vms).Contains(row.Vm)).Select(row => new { row.Vm, Host = (string?)row.Host }));
        }

        foreach (var concerned in await hosts.ToListAsync())
        {
            if (concerned.Host is not null)
            {
                touched.Add(new Touched(concerned.Host, concerned.Vm));
            }
        }
    }
}
