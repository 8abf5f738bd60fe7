using Fleet.Api.Agents;
using Fleet.Api.Startup;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hosts;
using Fleet.Data.Entities;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.Api.Tests;

/// <summary>What silence means: of one host, of all at once, and after the API's own absence. Heartbeats are due every 5 s, silence is noticed after 15.</summary>
public sealed class LivenessTests
{
    private const int Fleet = 100;
    private readonly FakeTimeProvider _time = new(DateTimeOffset.UnixEpoch.AddYears(60));

    [Fact]
    public void Interval_GrowsWithTheFleet()
    {
        var board = Claimed(new FleetOptions { HeartbeatsPerSecond = 10 });
        Assert.Equal(TimeSpan.FromSeconds(10), board.Interval);
    }

    [Fact]
    [Trait("Invariant", "I6")]
    public void Hosts_AllSilentAtOnce_AreHeldOnline_ButNothingOfTheirsIsArmed()
    {
        var board = Claimed();
        Beat(board, 0, Fleet);
        _time.Advance(TimeSpan.FromMinutes(10));
        Assert.Equal(Fleet, Online(board));
        Assert.Equal(new ExpirySweepResult(Fleet, Fleet, Began: true, Released: false), board.SweepExpired());
        Assert.Equal((Fleet, Fleet), (Online(board), board.Held));
        Assert.Null(board.StatusOf("host-0", "vm-1"));
        Assert.False(board.SweepExpired().Began, "It was told twice.");

        Beat(board, 0, Fleet);
        Assert.Equal(0, board.SweepExpired().Silent);
        Assert.Equal((Fleet, 0), (Online(board), board.Held));
    }

    /// <summary>What is refused while a host is online, an override above all, must become possible some time.</summary>
    [Fact]
    [Trait("Invariant", "I6")]
    public void Hosts_HeldOnline_AreHeldNoLongerThanTheLimit()
    {
        var board = Claimed();
        _time.Advance(TimeSpan.FromSeconds(15));
        Assert.True(board.SweepExpired().Began);
        _time.Advance(TimeSpan.FromSeconds(119));
        board.SweepExpired();
        Assert.Equal(Fleet, Online(board));
        _time.Advance(TimeSpan.FromSeconds(1));
        Assert.True(board.SweepExpired().Released);
        Assert.Equal((0, 0), (Online(board), board.Held));
    }

    [Fact]
    public void Hosts_StillSilentWhenTheOthersAreBack_ExpireAfterAnInterval()
    {
        var board = Claimed();
        _time.Advance(TimeSpan.FromSeconds(15));
        Assert.True(board.SweepExpired().Began);
        Beat(board, 0, Fleet - 15);
        board.SweepExpired();
        Assert.Equal(Fleet, Online(board));
        _time.Advance(TimeSpan.FromSeconds(5));
        Assert.True(board.SweepExpired().Released);
        Assert.Equal(Fleet - 15, Online(board));
    }

    [Fact]
    public void Hosts_SilentOneByOne_Expire()
    {
        var board = Claimed();
        _time.Advance(TimeSpan.FromSeconds(10));
        Beat(board, 20, Fleet);
        _time.Advance(TimeSpan.FromSeconds(5));
        board.SweepExpired();
        Assert.Equal(Fleet - 20, Online(board));
        Assert.Equal(HostStates.Unknown, board.StateOf("host-0"));
        Assert.Equal(0, board.Held);
    }

    [Fact]
    public void Hosts_OfASmallFleet_ExpireWithoutBrake()
    {
        var board = Claimed(hosts: 10);
        _time.Advance(TimeSpan.FromSeconds(15));
        Assert.Equal(0, Online(board));
    }

    [Fact]
    public void Hosts_AfterAStart_DoNotExpireBeforeAnIntervalAndTheGrace()
    {
        var board = Board(new FleetOptions { StartGrace = TimeSpan.FromMinutes(1), HeartbeatsPerSecond = 1 });
        board.Restore([.. Enumerable.Range(0, 8).Select(Row)]);
        // Eight hosts at one heartbeat a second: 8 s, for the first row as for the last.
        _time.Advance(TimeSpan.FromSeconds(67));
        Assert.Equal(8, Online(board));
        _time.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(0, Online(board));
    }

    /// <summary>The sweeps that really run: held while all are silent, told once.</summary>
    [Fact]
    public async Task Sweep_WhenTheWholeFleetFallsSilent_SaysSoOnce()
    {
        await using var api = await ApiHost.StartAsync(time: _time);
        var board = api.Services.GetRequiredService<StatusBoard>();
        for (var host = 0; host < Fleet; host++)
        {
            board.Claim($"host-{host}", 1);
        }

        while (!api.Logs.Any(line => line.EventId == 2206))
        {
            _time.Advance(TimeSpan.FromSeconds(1));
            await Task.Delay(1); // allowed: polling; the test's own time limit ends it
        }

        _time.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(Fleet, Online(board));
        Assert.Single(api.Logs, line => line.EventId == 2206);
    }

    private StatusBoard Board(FleetOptions? options = null) => new(_time, Options.Create(options ?? new FleetOptions()));

    private StatusBoard Claimed(FleetOptions? options = null, int hosts = Fleet)
    {
        var board = Board(options);
        for (var host = 0; host < hosts; host++)
        {
            board.Claim($"host-{host}", 1);
        }

        return board;
    }

    private static void Beat(StatusBoard board, int from, int to)
    {
        var armed = new Dictionary<string, VmStatus> { ["vm-1"] = new("vm-1", 1, 1, 1, new string('0', 64), "armed", null, []) };
        for (var host = from; host < to; host++)
        {
            Assert.True(board.Heartbeat($"host-{host}", 1, armed));
        }
    }

    private static int Online(StatusBoard board) => board.All().Count(host => host.State == HostStates.Online);

    private static HostRow Row(int host) => new() { Id = $"host-{host}", State = HostStates.Online, Labels = "{}", Incarnation = 1 };
}
