namespace Fleet.Data.Entities;

/// <summary>A poisoned page; no two rows of a VM cover the same frame.</summary>
public sealed class PoisonedPageRow
{
    public required string Vm { get; set; }

    public long Frame { get; set; }

    public int Shift { get; set; }

    public required string Class { get; set; }

    public required string Source { get; set; }

    public string? FirstHost { get; set; }

    public long DetectedAt { get; set; }

    public long AddedGeneration { get; set; }

    public long MemoryInstance { get; set; }

    /// <summary>Bumped by every re-report, so that a conditional clear never removes a newer strike.</summary>
    public long Version { get; set; }
}
