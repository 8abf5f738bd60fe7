namespace Fleet.Data.Entities;

public sealed class HostRow
{
    public required string Id { get; set; }

    /// <summary>As last written; the status board knows better between transitions.</summary>
    public required string State { get; set; }

    public long? Incarnation { get; set; }

    public string? BootId { get; set; }

    public string? AgentVersion { get; set; }

    public string? Kernel { get; set; }

    public string? Capabilities { get; set; }

    /// <summary>Coarse: written in batches.</summary>
    public long? LastSeenAt { get; set; }

    public required string Labels { get; set; }

    public bool Drained { get; set; }

    /// <summary>Store epoch in which its agent last stated what it holds.</summary>
    public long? StatedEpoch { get; set; }

    /// <summary>Store epoch in which an override asserted that it is dead and runs no guest.</summary>
    public long? FencedEpoch { get; set; }

    public long Version { get; set; }
}
