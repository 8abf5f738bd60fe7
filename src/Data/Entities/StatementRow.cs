namespace Fleet.Data.Entities;

/// <summary>What a host stated of a VM in the present store epoch; its pages joined the VM's set at once.</summary>
public sealed class StatementRow
{
    public required string Host { get; set; }

    public required string Vm { get; set; }

    /// <summary>The newest memory instance that the host knew.</summary>
    public long MemoryInstance { get; set; }

    /// <summary>Highest placement epoch under which a guest was allowed there; null when never.</summary>
    public long? Right { get; set; }

    public long? RightMemoryInstance { get; set; }

    public long? Closed { get; set; }

    public string? VmmInstance { get; set; }

    /// <summary>The guest may run there now.</summary>
    public bool Live { get; set; }

    /// <summary>A guest runs there outside the barrier.</summary>
    public bool Unguarded { get; set; }

    public bool Sealed { get; set; }

    /// <summary>VMM instance that the seal was towards; null for a park.</summary>
    public string? SealedTo { get; set; }

    /// <summary>How that host's agent reaches the VMM, as JSON; null when it did not know.</summary>
    public string? Attach { get; set; }
}
