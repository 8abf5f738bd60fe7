using System.Text;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Migrations;
using Fleet.HostAgent.Gate;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Tests;

/// <summary>What a VMM says and the control plane would not take, or the agent could not add up: it goes no further than the agent.</summary>
public sealed class MalformedLineTests : GateAgentFixture
{
    /// <summary>The control plane refuses a request with such a seal whole, and the seal would be sent again for ever.</summary>
    [Theory]
    [InlineData("")]
    [InlineData("boot-b")]
    [InlineData("boot-b:20")]
    [InlineData("boot-b:20:3:4")]
    [InlineData("boot-b:-20:3")]
    [InlineData("boot-b:20:x")]
    [InlineData(":20:3")]
    [InlineData("boot\u0007:20:3")]
    [InlineData("long")]
    public async Task StreamTarget_ThatIsNoVmmInstance_EndsTheConnectionAndIsNotSealed(string target)
    {
        target = target == "long" ? $"{new string('b', 124)}:20:3" : target;
        await using var agent = await TestAgent.StartAsync(Root, Vm(1, 1, null));
        var (held, hold) = await HeldForSwitchoverAsync(agent);
        using var channel = held;

        channel.SendState(VmmStates.Held, target, hold);

        Assert.Equal("malformed-event", (await LineAsync(channel, AgentLine.Rejected)).Code);
        Assert.Null(await channel.ReceiveAsync());
        using var again = await HandOverAsync(agent, VmmStates.Held, target);
        Assert.Equal("malformed", (await LineAsync(again, AgentLine.Rejected)).Code);
        await agent.LookAsync("vm-1");
        Assert.Equal(0, agent.Spool.Count);
    }

    /// <summary>Lines that once were a defect in the agent's log, as often as a VMM cared to send them.</summary>
    [Theory]
    [InlineData("""{"type":"state","state":"loaded","undelivered":[null]}""")]
    [InlineData("""{"type":"state","state":"loaded","undelivered":[{"start":9,"end":8}]}""")]
    [InlineData("""{"type":"mce-injected","sequence":1,"guestPhysicalAddress":"0x7000","count":9223372036854775807,"at":"2026-01-01T00:00:00Z"}""")]
    public async Task Line_ThatCannotBeAddedUp_IsMalformed(string line)
    {
        using var logs = new CapturingLogs();
        await using var agent = await TestAgent.StartAsync(
            Root, new Dictionary<string, string?>(), services => services.AddSingleton<ILoggerFactory>(logs), Incoming(MigrationStates.Preparing, null, 1, new PageKey(7, 12)));
        using var channel = await HandOverAsync(agent, VmmStates.Loaded);
        await LineAsync(channel, AgentLine.Attached);

        channel.SendRaw(Encoding.UTF8.GetBytes(line + "\n" + line + "\n"));

        Assert.Equal("malformed-event", (await LineAsync(channel, AgentLine.Rejected)).Code);
        Assert.DoesNotContain(1222, logs.Ids);
    }

    /// <summary>A detail may hold what a VMM calls its memory.</summary>
    [Fact]
    public void Obstacle_WithALongOrUncleanDetail_IsCutAndCleaned()
    {
        var outbox = new GateOutbox();
        outbox.Set("vm-1", new GateObstacle("vm-1", "m-1", "layout", "a\tb\n" + new string('x', 1000)));
        outbox.Set("vm-2", new GateObstacle("vm-2", "m-2", "layout", "short"));
        // Neither half of a character is a character.
        outbox.Set("vm-3", new GateObstacle("vm-3", "m-3", "layout", new string('x', 499) + "\U0001F600"));
        outbox.Set("vm-4", new GateObstacle("vm-4", "m-4", "layout", string.Empty));

        var details = outbox.Take().Obstacles!.ToDictionary(obstacle => obstacle.Vm, obstacle => obstacle.Detail);
        Assert.Equal("a b " + new string('x', 496), details["vm-1"]);
        Assert.Equal("short", details["vm-2"]);
        Assert.Equal(new string('x', 499), details["vm-3"]);
        Assert.Null(details["vm-4"]);

        // Told already: the same again is no change.
        outbox.Set("vm-1", new GateObstacle("vm-1", "m-1", "layout", "a\tb\n" + new string('x', 1000)));
        Assert.Null(outbox.Take().Obstacles);
    }
}
