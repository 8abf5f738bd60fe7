namespace Fleet.Api.Tests.Simulation;

/// <summary>What happened, so that a run in which nothing did is not taken for a proof.</summary>
internal sealed class FleetCounts
{
    public int Lifts { get; set; }

    public int Parks { get; set; }

    public int Resets { get; set; }

    public int Restores { get; set; }

    public int Proofs { get; set; }

    public void Add(FleetCounts other) =>
        (Lifts, Parks, Resets, Restores, Proofs) =
        (Lifts + other.Lifts, Parks + other.Parks, Resets + other.Resets, Restores + other.Restores, Proofs + other.Proofs);

    public override string ToString() => $"{Lifts} lifts, {Parks} parks, {Resets} new lives of the memory, {Restores} restores ({Proofs} shown by a number)";
}
