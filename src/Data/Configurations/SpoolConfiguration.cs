using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace Fleet.Data.Configurations;

internal sealed class SpoolConfiguration : IEntityTypeConfiguration<SpoolRow>
{
    public void Configure(EntityTypeBuilder<SpoolRow> builder)
    {
        builder.ToTable("spools");
        builder.HasKey(row => new { row.Host, row.SpoolId });
        builder.Property(row => row.Host).HasMaxLength(64);
        builder.Property(row => row.SpoolId).HasMaxLength(32);
    }
}
