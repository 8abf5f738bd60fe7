using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace Fleet.Data.Configurations;

internal sealed class HitConfiguration : IEntityTypeConfiguration<HitRow>
{
    public void Configure(EntityTypeBuilder<HitRow> builder)
    {
        builder.ToTable("hits");
        builder.HasKey(row => row.Id);
        builder.Property(row => row.Vm).HasMaxLength(64);
        builder.Property(row => row.Host).HasMaxLength(64);
        builder.Property(row => row.Access).HasMaxLength(16);
        builder.Property(row => row.Evidence).HasMaxLength(24);
        builder.Property(row => row.Outcome).HasMaxLength(24);
        builder.HasIndex(row => new
        {
            row.Vm,
            row.MemoryInstance,
            row.Frame,
            row.Host,
            row.PlacementEpoch,
            row.Access,
            row.Evidence,
            row.Outcome,
        }).IsUnique();
        builder.HasIndex(row => row.Host);
        builder.HasIndex(row => row.LastAt);
    }
}
