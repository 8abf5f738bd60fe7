using Fleet.TinyVmm.Guest;

namespace Fleet.TinyVmm.Vcpu;

/// <summary>One command for the guest's program.</summary>
/// <param name="Address">Guest physical address of the first byte.</param>
/// <param name="Bytes">Length; 4 for a load or store.</param>
/// <param name="Value">The dword to store, or the seed of a fill.</param>
public readonly record struct GuestCommand(GuestOperation Operation, ulong Address, ulong Bytes, uint Value);

/// <summary>How a command ended.</summary>
public abstract record GuestOutcome
{
    private GuestOutcome()
    {
    }

    /// <param name="Value">What the guest read or computed.</param>
    public sealed record Completed(uint Value) : GuestOutcome;

    public sealed record MachineCheck(MachineCheckReport Report) : GuestOutcome;

    public sealed record Failed(string Reason) : GuestOutcome;
}

/// <summary>The machine-check registers as the guest's handler read them.</summary>
public readonly record struct MachineCheckReport(ulong McgStatus, ulong Status, ulong Address, ulong Misc);
