using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace Fleet.Data.Configurations;

internal sealed class JoinTokenConfiguration : IEntityTypeConfiguration<JoinTokenRow>
{
    public void Configure(EntityTypeBuilder<JoinTokenRow> builder)
    {
        builder.ToTable("join_tokens");
        builder.HasKey(row => row.Id);
        builder.Property(row => row.Id).HasMaxLength(16);
        builder.Property(row => row.Hash).HasMaxLength(64);
        builder.Property(row => row.Host).HasMaxLength(64);
        builder.Property(row => row.CredentialId).HasMaxLength(16);
        builder.Property(row => row.CredentialHash).HasMaxLength(64);
        builder.Property(row => row.Version).IsConcurrencyToken();
    }
}
