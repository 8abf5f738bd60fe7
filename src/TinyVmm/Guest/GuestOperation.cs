namespace Fleet.TinyVmm.Guest;

/// <summary>What the guest's program can do; the numbers are those it reads from its port.</summary>
public enum GuestOperation
{
    Load = 1,
    Store = 2,
    Fill = 3,
    Checksum = 4,
}
