namespace Fleet.Data.Entities;

/// <summary>A single-use right to enrol; once used it names the one credential it was used for.</summary>
public sealed class JoinTokenRow
{
    public required string Id { get; set; }

    public required string Hash { get; set; }

    public required string Host { get; set; }

    public long CreatedAt { get; set; }

    public long ExpiresAt { get; set; }

    public long? UsedAt { get; set; }

    public long? RevokedAt { get; set; }

    public string? CredentialId { get; set; }

    public string? CredentialHash { get; set; }

    public long Version { get; set; }
}
