namespace Fleet.Data.Entities;

public sealed class CredentialRow
{
    public required string Id { get; set; }

    /// <summary>SHA-256 of the whole token text, lower-case hex.</summary>
    public required string Hash { get; set; }

    public required string Name { get; set; }

    /// <summary>Separated by blanks.</summary>
    public required string Scopes { get; set; }

    /// <summary>The host an agent's credential is bound to.</summary>
    public string? Host { get; set; }

    public long CreatedAt { get; set; }

    public long? ExpiresAt { get; set; }

    public long? RevokedAt { get; set; }

    /// <summary>The credential that an agent made to take this one's place.</summary>
    public string? ReplacedBy { get; set; }

    /// <summary>Coarse: written in batches, at most once an hour.</summary>
    public long? LastUsedAt { get; set; }

    public long Version { get; set; }
}
