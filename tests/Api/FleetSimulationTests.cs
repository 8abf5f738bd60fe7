using CsCheck;
using Fleet.Api.Tests.Simulation;
using Fleet.Api.Tests.Support;

namespace Fleet.Api.Tests;

/// <summary>
/// Random interleavings of crashes, power cuts, delays, memory errors, orchestrators, resets, parks, rebuilds and restores, over the real
/// control plane and the agent's own rules, with the invariants looked at in a simulated guest after each step.
/// </summary>
public sealed class FleetSimulationTests
{
    private const int RoundsPerWorld = 250;

    private static readonly Gen<FleetStep> GenStep = Gen.Select(
        Gen.Frequency(
            (10, Gen.Const(FleetStepKind.Progress)),
            (2, Gen.Const(FleetStepKind.Tick)),
            (1, Gen.Const(FleetStepKind.Write)),
            (1, Gen.Const(FleetStepKind.Strike)),
            (1, Gen.Const(FleetStepKind.Backup)),
            (1, Gen.Const(FleetStepKind.Restore)),
            (10, Gen.Enum<FleetStepKind>())),
        Gen.Int[0, 2], Gen.Int[0, SimulatedVmm.Frames - 1], Gen.Int[0, 5])
        .Select((kind, host, frame, variant) => new FleetStep(kind, host, frame, variant));

    [Fact]
    [Trait("Invariant", "I1")]
    [Trait("Invariant", "I2")]
    [Trait("Invariant", "I3")]
    [Trait("Invariant", "I4")]
    [Trait("Invariant", "I5")]
    [Trait("Invariant", "IT")]
    public async Task Fleet_UnderRandomInterleavings_KeepsTheInvariantsAndCanAlwaysBeBroughtBack()
    {
        var world = await GateWorld.StartAsync(withVm: false);
        var round = 0;
        var counts = new FleetCounts();
        await Task.Run(() => GenStep.Array[5, 50].SampleAsync(
            async steps =>
            {
                if (++round % RoundsPerWorld == 0)
                {
                    await world.DisposeAsync();
                    world = await GateWorld.StartAsync(withVm: false);
                }

                using var fleet = await SimulatedFleet.StartAsync(world, $"vm-{round}");
                foreach (var step in steps)
                {
                    await fleet.StepAsync(step);
                }

                await fleet.HealAsync(withRepairs: steps[0].Variant % 2 == 0);
                await world.ForgetAsync($"vm-{round}");
                counts.Add(fleet.Counts);
            },
            iter: Environment.GetEnvironmentVariable("FLEET_FULL") == "1" ? 5_000 : 200,
            threads: 1,
            print: steps => string.Join(' ', steps.Select(step => $"{step.Kind}({step.Host},{step.Frame},{step.Variant})"))));
        await world.DisposeAsync();
        TestContext.Current.TestOutputHelper?.WriteLine(counts.ToString());
        Assert.True(counts is { Lifts: > 50, Parks: > 0, Resets: > 50, Restores: > 30, Proofs: > 0 }, $"Only {counts}: the interleavings prove nothing.");
    }
}
