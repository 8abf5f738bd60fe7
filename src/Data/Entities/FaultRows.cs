namespace Fleet.Data.Entities;

/// <summary>A memory module of a host. What is not known of it is the empty text; all empty is "some module of this host".</summary>
public sealed class DimmRow
{
    public long Id { get; set; }

    public required string Host { get; set; }

    public required string Label { get; set; }

    public required string Locator { get; set; }

    public required string Serial { get; set; }

    public required string Manufacturer { get; set; }

    public required string PartNumber { get; set; }
}

/// <summary>Memory errors of one module that agree in frame and kind, with a count.</summary>
public sealed class FaultRow
{
    /// <summary>In place of a physical frame that is not known: null would not be unique.</summary>
    public const long UnknownFrame = -1;

    public long Id { get; set; }

    public long Dimm { get; set; }

    /// <summary>Frame of the host's physical address, in 4 KiB units, or <see cref="UnknownFrame"/>.</summary>
    public long PhysicalFrame { get; set; }

    public required string Kind { get; set; }

    /// <summary>The VM that had it mapped when it was reported last.</summary>
    public string? Vm { get; set; }

    public long? MemoryInstance { get; set; }

    public long? Frame { get; set; }

    public long FirstAt { get; set; }

    public long LastAt { get; set; }

    public long Count { get; set; }
}

/// <summary>How many errors of a kind a module had in an hour.</summary>
public sealed class FaultHourRow
{
    public const long Milliseconds = 3_600_000;

    public long Id { get; set; }

    public long Dimm { get; set; }

    public required string Kind { get; set; }

    /// <summary>Begin of the hour, unix ms.</summary>
    public long Hour { get; set; }

    public long Count { get; set; }
}
