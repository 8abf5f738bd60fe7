namespace Fleet.Contracts;

/// <summary>
/// The store epoch in the high bits of every number that the control plane issues (revision, generation, placement epoch, memory
/// instance, incarnation): a new one begins after a restore from backup, so that none is ever issued twice.
/// </summary>
public static class StoreEpochs
{
    public const int Shift = 40;

    /// <summary>How far an agent's number may be ahead of the control plane's own store epoch: nobody restores more often than that between two claims.</summary>
    public const long MaximumLead = 256;

    public static long Of(long number) => number >> Shift;

    /// <summary>The number that every number of this store epoch is above.</summary>
    public static long FloorOf(long epoch) => epoch << Shift;

    /// <summary>Above every number of the store epochs before this one, and below every number of it.</summary>
    public static long LastBefore(long epoch) => FloorOf(epoch) - 1;
}
