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

    /// <summary>
    /// Ended by an override, without the host's own word: the VM concerns it until it owns it again, so that its agent stops a guest
    /// that runs there after all (GATE.md, "Fence").
    /// </summary>
    public bool Fenced { get; set; }
}
