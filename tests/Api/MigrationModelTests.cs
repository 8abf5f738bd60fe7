using CsCheck;
using Fleet.Api.Tests.Support;

namespace Fleet.Api.Tests;

/// <summary>
/// Random interleavings of everything that callers, agents, the network and the clock do to one VM's migrations, over the real
/// commands and a real file; <see cref="GateModel"/> says after each step what must be so.
/// </summary>
public sealed class MigrationModelTests
{
    /// <summary>A store that grows without end would make each round slower than the one before.</summary>
    private const int RoundsPerWorld = 500;

    private static readonly Gen<GateStep> GenStep = Gen.Select(
        Gen.Frequency((9, Gen.Const(GateStepKind.Progress)), (14, Gen.Enum<GateStepKind>())), Gen.Int[0, 2], Gen.Int[0, 3], Gen.Int[0, 5])
        .Select((kind, host, number, variant) => new GateStep(kind, host, number, variant));

    [Fact]
    [Trait("Invariant", "I2")]
    [Trait("Invariant", "I3")]
    [Trait("Invariant", "I4")]
    [Trait("Invariant", "I7")]
    public async Task Gate_UnderRandomInterleavings_DoesExactlyWhatTheModelAllows()
    {
        var world = await GateWorld.StartAsync(withVm: false);
        var round = 0;
        var granted = 0;
        // Away from the test framework's own scheduler: thousands of short continuations would keep the other tests waiting.
        await Task.Run(() => GenStep.Array[5, 45].SampleAsync(
            async steps =>
            {
                if (++round % RoundsPerWorld == 0)
                {
                    await world.DisposeAsync();
                    world = await GateWorld.StartAsync(withVm: false);
                }

                var run = await GateModel.StartAsync(world, $"vm-{round}");
                foreach (var step in steps)
                {
                    await run.StepAsync(step);
                }

                granted += run.Grants;
            },
            iter: Environment.GetEnvironmentVariable("FLEET_FULL") == "1" ? 20_000 : 500,
            threads: 1));
        await world.DisposeAsync();
        Assert.True(granted > 100, $"Only {granted} grants: the interleavings prove nothing.");
    }
}
