using CsCheck;
using Fleet.Api.Tests.Support;

namespace Fleet.Api.Tests;

/// <summary>
/// Random interleavings of everything that callers, agents, the network and the clock do to one VM's migrations, over the real
/// commands and a real file; <see cref="GateModel"/> says after each step what must be so.
/// </summary>
public sealed class MigrationModelTests
{
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
        await using var world = await GateWorld.StartAsync(withVm: false);
        var round = 0;
        var granted = 0;
        // Away from the test framework's own scheduler: thousands of short continuations would keep the other tests waiting.
        await Task.Run(() => GenStep.Array[5, 45].SampleAsync(
            async steps =>
            {
                var run = await GateModel.StartAsync(world, $"vm-{++round}");
                foreach (var step in steps)
                {
                    await run.StepAsync(step);
                }

                granted += run.Grants;
            },
            iter: Environment.GetEnvironmentVariable("FLEET_FULL") == "1" ? 20_000 : 500,
            threads: 1));
        Assert.True(granted > 100, $"Only {granted} grants: the interleavings prove nothing.");
    }
}
