namespace Fleet.Data.Entities;

/// <summary>Placement history: which host held which memory instance, and when. Authorises reports spooled back then.</summary>
public sealed class PlacementRow
{
    public required string Vm { get; set; }

    public long PlacementEpoch { get; set; }

    public required string Host { get; set; }

    public long MemoryInstance { get; set; }

    public long FromRevision { get; set; }

    public long? ToRevision { get; set; }
}
