namespace Fleet.Data.Entities;

/// <summary>Intercepted accesses that agree in everything but time, with a count.</summary>
public sealed class HitRow
{
    public long Id { get; set; }

    public required string Vm { get; set; }

    public long MemoryInstance { get; set; }

    public long Frame { get; set; }

    public required string Host { get; set; }

    public long PlacementEpoch { get; set; }

    public required string Access { get; set; }

    public required string Evidence { get; set; }

    public required string Outcome { get; set; }

    /// <summary>Virtual CPU of the first access.</summary>
    public int? Vcpu { get; set; }

    public long FirstAt { get; set; }

    public long LastAt { get; set; }

    public long Count { get; set; }
}
