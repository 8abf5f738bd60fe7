using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Data;

public sealed class FleetDbContext(DbContextOptions<FleetDbContext> options) : DbContext(options)
{
    public DbSet<CounterRow> Counter => Set<CounterRow>();

    public DbSet<ChangeRow> Changes => Set<ChangeRow>();

    public DbSet<VmRow> Vms => Set<VmRow>();

    public DbSet<PoisonedPageRow> Pages => Set<PoisonedPageRow>();

    public DbSet<PlacementRow> Placements => Set<PlacementRow>();

    public DbSet<MigrationRow> Migrations => Set<MigrationRow>();

    public DbSet<HostRow> Hosts => Set<HostRow>();

    public DbSet<SpoolRow> Spools => Set<SpoolRow>();

    public DbSet<CredentialRow> Credentials => Set<CredentialRow>();

    public DbSet<JoinTokenRow> JoinTokens => Set<JoinTokenRow>();

    public DbSet<StatementRow> Statements => Set<StatementRow>();

    public DbSet<HitRow> Hits => Set<HitRow>();

    public DbSet<DimmRow> Dimms => Set<DimmRow>();

    public DbSet<FaultRow> Faults => Set<FaultRow>();

    public DbSet<FaultHourRow> FaultHours => Set<FaultHourRow>();

    protected override void OnModelCreating(ModelBuilder modelBuilder) =>
        modelBuilder.ApplyConfigurationsFromAssembly(typeof(FleetDbContext).Assembly);
}
