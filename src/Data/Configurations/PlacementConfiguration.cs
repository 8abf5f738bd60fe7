using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace Fleet.Data.Configurations;

internal sealed class PlacementConfiguration : IEntityTypeConfiguration<PlacementRow>
{
    public void Configure(EntityTypeBuilder<PlacementRow> builder)
    {
        builder.ToTable("placements");
        builder.HasKey(row => new { row.Vm, row.PlacementEpoch, row.Host });
        builder.Property(row => row.Vm).HasMaxLength(64);
        builder.Property(row => row.Host).HasMaxLength(64);
        builder.HasIndex(row => new { row.Host, row.Vm });
        builder.HasIndex(row => new { row.Host, row.Fenced });
    }
}
