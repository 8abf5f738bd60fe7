using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace Fleet.Data.Configurations;

internal sealed class VmConfiguration : IEntityTypeConfiguration<VmRow>
{
    public void Configure(EntityTypeBuilder<VmRow> builder)
    {
        builder.ToTable("vms");
        builder.HasKey(row => row.Id);
        builder.Property(row => row.Id).HasMaxLength(64);
        builder.Property(row => row.Host).HasMaxLength(64);
        builder.Property(row => row.QuarantineReason).HasMaxLength(64);
        builder.Property(row => row.Version).IsConcurrencyToken();
        builder.HasIndex(row => row.Host);
    }
}
