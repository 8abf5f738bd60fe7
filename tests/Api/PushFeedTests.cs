using CsCheck;
using Fleet.Api.Agents;
using Fleet.Api.Agents.Push;
using Fleet.Api.Tests.Support;
using Fleet.Data.Writing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Tests;

/// <summary>A host's feed, step by step, without a connection.</summary>
[Trait("Invariant", "I3")]
public sealed class PushFeedTests
{
    /// <summary>
    /// Every interleaving of changes with the steps of a stream, above all changes between subscribing and the snapshot, and
    /// reconnects at any point: after a last drain the view equals the database.
    /// </summary>
    [Fact]
    public async Task Feed_UnderRandomInterleavings_EndsEqualToTheDatabase()
    {
        var hub = new PushHub();
        var between = new BeforeQuery();
        await using var store = await TestStore.StartAsync(
            services => AddFanout(services, hub), configureReader: options => options.AddInterceptors(between));
        var reader = store.Services.GetRequiredService<DesiredReader>();
        var round = 0;
        var genStep = Gen.Select(Gen.Enum<FeedAct>(), Gen.Int[0, 2], Gen.Int[0, 5]);
        await genStep.Array[1, 40].SampleAsync(
            async steps =>
            {
                // A host of its own for every round: rounds do not see each other.
                var world = new FeedWorld(store, hub, reader, between, $"host-{Interlocked.Increment(ref round)}");
                foreach (var (act, vm, number) in steps)
                {
                    await world.DoAsync(act, vm, number);
                }

                await world.AssertSettlesAsync();
            },
            iter: 150,
            threads: 1);
    }

    private static void AddFanout(IServiceCollection services, PushHub hub)
    {
        services.AddSingleton(hub);
        services.AddSingleton<StatusBoard>();
        services.AddSingleton<DigestCache>();
        services.AddSingleton<DesiredIndex>();
        services.AddSingleton<DesiredReader>();
        services.AddSingleton<ICommitObserver, CommitFanout>();
        services.AddSingleton(Options.Create(new Startup.FleetOptions()));
    }
}
