namespace Fleet.Data.Entities;

/// <summary>How far a host's spool has been applied: sequences up to this one are replays.</summary>
public sealed class SpoolRow
{
    public required string Host { get; set; }

    public required string SpoolId { get; set; }

    public long LastSequence { get; set; }
}
