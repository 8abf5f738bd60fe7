using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace Fleet.Data.Configurations;

internal sealed class DimmConfiguration : IEntityTypeConfiguration<DimmRow>
{
    public void Configure(EntityTypeBuilder<DimmRow> builder)
    {
        builder.ToTable("dimms");
        builder.HasKey(row => row.Id);
        builder.Property(row => row.Host).HasMaxLength(64);
        builder.Property(row => row.Label).HasMaxLength(128);
        builder.Property(row => row.Locator).HasMaxLength(128);
        builder.Property(row => row.Serial).HasMaxLength(128);
        builder.Property(row => row.Manufacturer).HasMaxLength(128);
        builder.Property(row => row.PartNumber).HasMaxLength(128);
        builder.HasIndex(row => new { row.Host, row.Label, row.Locator, row.Serial, row.Manufacturer, row.PartNumber }).IsUnique();
    }
}

internal sealed class FaultConfiguration : IEntityTypeConfiguration<FaultRow>
{
    public void Configure(EntityTypeBuilder<FaultRow> builder)
    {
        builder.ToTable("faults");
        builder.HasKey(row => row.Id);
        builder.Property(row => row.Kind).HasMaxLength(16);
        builder.Property(row => row.Vm).HasMaxLength(64);
        builder.HasIndex(row => new { row.Dimm, row.PhysicalFrame, row.Kind }).IsUnique();
        builder.HasIndex(row => row.LastAt);
    }
}

internal sealed class FaultHourConfiguration : IEntityTypeConfiguration<FaultHourRow>
{
    public void Configure(EntityTypeBuilder<FaultHourRow> builder)
    {
        builder.ToTable("fault_hours");
        builder.HasKey(row => row.Id);
        builder.Property(row => row.Kind).HasMaxLength(16);
        builder.HasIndex(row => new { row.Dimm, row.Hour, row.Kind }).IsUnique();
        builder.HasIndex(row => row.Hour);
    }
}
