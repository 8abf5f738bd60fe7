namespace Fleet.TinyVmm.Guest;

/// <summary>I/O ports between the guest's program and the VMM; all 32 bits wide.</summary>
public static class GuestPorts
{
    /// <summary>In: what to do next (<see cref="GuestOperation"/>). The guest waits here while it has nothing to do.</summary>
    public const byte Operation = 0xe0;

    /// <summary>In: address of the first dword, as the guest sees it.</summary>
    public const byte Address = 0xe1;

    /// <summary>In: number of dwords.</summary>
    public const byte Count = 0xe2;

    /// <summary>In: value to store, low half of the address for a fill, or the checksum so far.</summary>
    public const byte Value = 0xe3;

    /// <summary>In: key of the pattern.</summary>
    public const byte Key = 0xe4;

    /// <summary>Out: the result; an operation that returns none writes something all the same.</summary>
    public const byte Result = 0xe8;

    /// <summary>Out, from the machine-check handler: MCG_STATUS, status, address, misc; low half first.</summary>
    public const byte MachineCheck = 0xe9;

    /// <summary>Dwords in one machine-check report.</summary>
    public const int MachineCheckWords = 8;
}
