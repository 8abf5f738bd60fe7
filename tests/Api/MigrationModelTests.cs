using CsCheck;
using Fleet.Api.Tests.Model;
using Fleet.Api.Tests.Support;

namespace Fleet.Api.Tests;

/// <summary>
/// Random interleavings of everything that callers, agents, the network and the clock do to one VM, over the real commands and a real
/// file; <see cref="GateModel"/> says after each step what must be so.
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
    [Trait("Invariant", "I5")]
    [Trait("Invariant", "I7")]
    public async Task Gate_UnderRandomInterleavings_DoesExactlyWhatTheModelAllows()
    {
        var world = await GateWorld.StartAsync(withVm: false);
        var round = 0;
        var counts = new GateCounts();
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

                await world.ForgetAsync($"vm-{round}");
                counts.Add(run.Counts);
            },
            iter: Environment.GetEnvironmentVariable("FLEET_FULL") == "1" ? 20_000 : 500,
            threads: 1,
            print: steps => string.Join(' ', steps.Select(step => $"{step.Kind}({step.Host},{step.Number},{step.Variant})"))));
        await world.DisposeAsync();
        TestContext.Current.TestOutputHelper?.WriteLine(counts.ToString());
        Assert.True(counts is { Grants: > 100, Parks: > 15, Resets: > 30, Quarantines: > 50, Conflicts: > 10 }, $"Only {counts}: the interleavings prove nothing.");
    }
}
