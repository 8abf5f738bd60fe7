using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace Fleet.Data.Configurations;

internal sealed class StatementConfiguration : IEntityTypeConfiguration<StatementRow>
{
    public void Configure(EntityTypeBuilder<StatementRow> builder)
    {
        builder.ToTable("statements");
        builder.HasKey(row => new { row.Vm, row.Host });
        builder.Property(row => row.Vm).HasMaxLength(64);
        builder.Property(row => row.Host).HasMaxLength(64);
        builder.Property(row => row.VmmInstance).HasMaxLength(128);
        builder.Property(row => row.SealedTo).HasMaxLength(128);
        builder.HasIndex(row => row.Host);
    }
}
