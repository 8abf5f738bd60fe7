using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace Fleet.Data.Configurations;

internal sealed class CredentialConfiguration : IEntityTypeConfiguration<CredentialRow>
{
    public void Configure(EntityTypeBuilder<CredentialRow> builder)
    {
        builder.ToTable("credentials");
        builder.HasKey(row => row.Id);
        builder.Property(row => row.Id).HasMaxLength(16);
        builder.Property(row => row.Hash).HasMaxLength(64);
        builder.Property(row => row.Name).HasMaxLength(128);
        builder.Property(row => row.Scopes).HasMaxLength(256);
        builder.Property(row => row.Host).HasMaxLength(64);
        builder.Property(row => row.ReplacedBy).HasMaxLength(16);
        builder.HasIndex(row => row.Host);
        builder.Property(row => row.Version).IsConcurrencyToken();
    }
}
