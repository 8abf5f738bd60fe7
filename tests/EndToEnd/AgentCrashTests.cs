using Fleet.Contracts;
using Fleet.Contracts.Vms;
using Fleet.Demo.Running;

namespace Fleet.EndToEnd.Tests;

/// <summary>The agent dies, is stopped, is started twice: a trapped page never becomes an ordinary page.</summary>
[Trait("Invariant", "I6")]
public sealed class AgentCrashTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Kill_AfterArming_GuestStaysEnforcedAndTheNewAgentTakesOver()
    {
        await using var one = await OneVm.StartAsync();
        await one.PoisonAsync(5000, 5001, 6000);
        await one.ArmedAsync();

        await one.Agent.KillAsync();
        await one.AssertMachineCheckAsync(5001);
        await one.StartAgentAsync();
        await one.ArmedAsync();
        await one.AttachedAsync();

        foreach (var frame in new long[] { 5000, 5001, 6000 })
        {
            await one.AssertMachineCheckAsync(frame);
        }

        var hits = await one.HitsAsync(4);
        Assert.Equal([(5000L, 1L), (5001, 2), (6000, 1)], hits.GroupBy(hit => hit.Frame).Select(group => (group.Key, group.Sum(hit => hit.Count))).Order());
    }

    [Fact]
    public async Task Terminate_Agent_EndsCleanlyAndTheGuestStaysEnforced()
    {
        await using var one = await OneVm.StartAsync();
        await one.PoisonAsync(5000);
        await one.ArmedAsync();

        Assert.Equal(0, await one.Agent.TerminateAsync());

        await one.AssertMachineCheckAsync(5000);
    }

    /// <summary>
    /// Killed at moments all over the arming of a large set, a round each: a page whose arming was confirmed never reads as data,
    /// whatever instruction the agent died at, and the next agent completes the set.
    /// </summary>
    [Fact]
    public async Task Kill_InTheMiddleOfArming_ConfirmedPagesNeverReadAndTheNextAgentCompletes()
    {
        await using var one = await OneVm.StartAsync();
        var confirmed = new List<long>();
        for (var round = 0; round < 8; round++)
        {
            var frames = Enumerable.Range(0, 400).Select(i => 4096L + (round * 1200) + (i * 3)).ToArray();
            await one.PoisonAsync(frames);
            // The rounds differ by how far the agent gets: the delay is what varies, not what is waited for.
            await Task.Delay(round * 3, Cancelled); // allowed: varies the moment of the kill
            await one.Agent.KillAsync();
            foreach (var frame in confirmed.TakeLast(3))
            {
                await one.AssertMachineCheckAsync(frame);
            }

            await one.StartAgentAsync();
            await one.ArmedAsync();
            confirmed.AddRange([frames[0], frames[200], frames[^1]]);
        }

        foreach (var frame in confirmed)
        {
            await one.AssertMachineCheckAsync(frame);
            Assert.Equal(0u, await one.ReadAsync(frame + 1));
        }
    }

    [Fact]
    public async Task Start_SecondAgentOnTheSameStateFolder_RefusesAndTheFirstGoesOn()
    {
        await using var one = await OneVm.StartAsync();
        await using var second = ChildProcess.Start(
            Programs.HostAgent, Path.Combine(one.Fleet.Root, "second.log"),
            [$"--Agent:Host={OneVm.Host}", $"--Agent:ControlPlane={one.Fleet.Address}", $"--Agent:StateFolder={Path.Combine(one.Fleet.Root, OneVm.Host)}"]);

        await LocalFleet.UntilAsync(() => Task.FromResult(second.HasExited), "the second agent to refuse", null, Cancelled);

        Assert.Equal(78, await second.TerminateAsync());
        Assert.Contains("another host agent uses the state folder", second.LogTail(), StringComparison.Ordinal);
        await one.PoisonAsync(5000);
        await one.ArmedAsync();
    }

    [Fact]
    public async Task Start_SecondAgentWithTheSameCredential_SupersedesTheFirst()
    {
        await using var one = await OneVm.StartAsync();
        await one.PoisonAsync(5000);
        await one.ArmedAsync();
        var state = Directory.CreateDirectory(Path.Combine(one.Fleet.Root, "copy")).FullName;
        File.Copy(Path.Combine(one.Fleet.Root, OneVm.Host, "credential"), Path.Combine(state, "credential"));
        await using var second = ChildProcess.Start(
            Programs.HostAgent, Path.Combine(one.Fleet.Root, "second.log"),
            [$"--Agent:Host={OneVm.Host}", $"--Agent:ControlPlane={one.Fleet.Address}", $"--Agent:StateFolder={state}"]);

        await LocalFleet.UntilAsync(() => Task.FromResult(one.Agent.HasExited), "the first agent to stop", second, Cancelled);

        Assert.Equal(3, await one.Agent.TerminateAsync());
        await one.AssertMachineCheckAsync(5000);
    }

    [Fact]
    public async Task Kill_Vmm_IsNotAttachedAndANewVmmIsArmedBeforeItIsTold()
    {
        await using var one = await OneVm.StartAsync();
        await one.PoisonAsync(5000);
        await one.ArmedAsync();

        await one.Vmm.KillAsync();
        await LocalFleet.UntilAsync(
            async () => (await one.Fleet.Client.GetVmAsync(OneVm.Vm, null, Cancelled)).Enforcement is [{ State: EnforcementStates.Pending, Reason: "not-attached" }],
            "the agent to notice", one.Agent, Cancelled);

        await one.Guest.DisposeAsync();
        await one.StartVmmAsync();
        await one.AssertMachineCheckAsync(5000);
        Assert.Equal(0u, await one.ReadAsync(5001));
    }
}
