namespace Fleet.Data.Entities;

public sealed class VmRow
{
    public required string Id { get; set; }

    /// <summary>Owner; null when parked.</summary>
    public string? Host { get; set; }

    /// <summary>Regions as JSON, ascending by guest physical address.</summary>
    public required string Memory { get; set; }

    public required string Attach { get; set; }

    public long MemoryInstance { get; set; }

    public long Generation { get; set; }

    public long PlacementEpoch { get; set; }

    /// <summary>Revision of the newest change to the definition (not to the poisoned set): the ETag.</summary>
    public long Version { get; set; }

    /// <summary>Number of rows in the pages table, kept with them.</summary>
    public long PoisonedPages { get; set; }

    /// <summary>After a restore from backup, until the hosts have said what they hold.</summary>
    public bool Quarantined { get; set; }

    /// <summary>One of <see cref="Contracts.Vms.QuarantineReasons"/>; null when it is not quarantined.</summary>
    public string? QuarantineReason { get; set; }

    /// <summary>A reset waits for the owner's agent to attest that no VMM holds the old RAM.</summary>
    public bool ResetWanted { get; set; }
}
