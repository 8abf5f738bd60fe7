using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace Fleet.Data.Configurations;

internal sealed class MigrationConfiguration : IEntityTypeConfiguration<MigrationRow>
{
    /// <summary>Understood alike by SQLite and PostgreSQL.</summary>
    private const string Active = "\"State\" IN ('preparing', 'switching', 'granted')";

    public void Configure(EntityTypeBuilder<MigrationRow> builder)
    {
        builder.ToTable("migrations");
        builder.HasKey(row => row.Id);
        builder.Property(row => row.Id).HasMaxLength(64);
        builder.Property(row => row.Vm).HasMaxLength(64);
        builder.Property(row => row.SourceHost).HasMaxLength(64);
        builder.Property(row => row.TargetHost).HasMaxLength(64);
        builder.Property(row => row.State).HasMaxLength(16);
        builder.Property(row => row.SealTargetInstance).HasMaxLength(128);
        builder.Property(row => row.PermitVmmInstance).HasMaxLength(128);
        builder.Property(row => row.Version).IsConcurrencyToken();
        builder.HasIndex(row => row.Vm, "one_active_migration").IsUnique().HasFilter(Active);
        builder.HasIndex(row => new { row.Vm, row.Id });
        builder.HasIndex(row => row.SourceHost).HasFilter(Active);
        builder.HasIndex(row => row.TargetHost).HasFilter(Active);
    }
}
