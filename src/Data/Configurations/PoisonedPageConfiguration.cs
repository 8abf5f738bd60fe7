using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace Fleet.Data.Configurations;

internal sealed class PoisonedPageConfiguration : IEntityTypeConfiguration<PoisonedPageRow>
{
    public void Configure(EntityTypeBuilder<PoisonedPageRow> builder)
    {
        builder.ToTable("pages");
        builder.HasKey(row => new { row.Vm, row.Frame });
        builder.Property(row => row.Vm).HasMaxLength(64);
        builder.Property(row => row.Class).HasMaxLength(16);
        builder.Property(row => row.Source).HasMaxLength(16);
        builder.Property(row => row.FirstHost).HasMaxLength(64);
        builder.Property(row => row.Version).IsConcurrencyToken();
    }
}
