namespace Fleet.Data.Entities;

/// <summary>The one counter behind every revision; its high bits are the store epoch.</summary>
public sealed class CounterRow
{
    public const int TheId = 1;

    public int Id { get; set; }

    public long Revision { get; set; }
}
