using Fleet.Contracts.Vms;
using Fleet.Demo.Running;
using Fleet.Tests.Shared;

namespace Fleet.EndToEnd.Tests;

/// <summary>kill -9 of the agent at random moments: in its start and takeover, at rest, and while pages are being armed.</summary>
[Trait("Invariant", "I6")]
public sealed class AgentKillTests
{
    private const string Host = "host-a";
    private const int PagesPerRound = 4;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    // For each of the two policies.
    private static int Rounds => Environment.GetEnvironmentVariable("FLEET_FULL") == "1" ? 100 : 25;

    [Theory]
    [InlineData("marker")]
    [InlineData("trap")]
    public async Task Kill_AtRandomMoments_NoSilentAccessAllTakenOverAndNothingLeaks(string policy)
    {
        Requires.Kvm();
        var seed = Environment.TickCount;
        var random = new Random(seed);
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {seed}");
        await using var fleet = await LocalFleet.StartAsync(Cancelled);
        var agent = await fleet.StartAgentAsync(Host, Cancelled, policy);
        await using var kvm = await WorkingGuest.StartAsync(fleet, Host, "vm-kvm", "kvm", seed, Cancelled);
        await using var software = await WorkingGuest.StartAsync(fleet, Host, "vm-software", "software", seed + 1, Cancelled);
        WorkingGuest[] guests = [kvm, software];
        await ArmedAsync(fleet, guests);
        var borrowed = ProcessResources.Borrowed(agent.Pid);
        var before = guests.Select(guest => (ProcessResources.Descriptors(guest.Process.Pid), ProcessResources.Threads(guest.Process.Pid))).ToList();

        for (var round = 0; round < Rounds; round++)
        {
            var startsAtRest = round % 3 == 0;
            if (startsAtRest)
            {
                await ArmedAsync(fleet, guests);
            }

            var poisoning = guests.Select(guest => fleet.Client.AddPagesAsync(guest.Vm, WorkingGuest.Request(guest.Choose(PagesPerRound)), Cancelled)).ToList();
            // An agent that was just launched loads, takes over, claims and arms in about a second; one at rest arms at once.
            await Task.Delay(startsAtRest ? random.Next(60) : random.Next(1500), Cancelled); // allowed: the random moment of the kill
            await agent.KillAsync();
            await Task.WhenAll(poisoning);
            Array.ForEach(guests, guest => guest.ThrowIfBroken());
            agent = await fleet.LaunchAgentAsync(Host, Cancelled, policy);
        }

        await ArmedAsync(fleet, guests);
        foreach (var guest in guests)
        {
            await guest.AttachedAsync(Cancelled);
            await guest.StopAndCheckAllAsync();
            Assert.Equal(Rounds * PagesPerRound, guest.Poisoned.Count);
            Assert.True(guest.MachineChecks >= guest.Poisoned.Count && guest.Reads > guest.MachineChecks, $"{guest.Reads} reads, {guest.MachineChecks} machine checks");
        }

        await EachHitOnceAsync(fleet, guests);
        await NothingLeaksAsync(fleet, agent, guests, borrowed, before);
    }

    private static async Task ArmedAsync(LocalFleet fleet, WorkingGuest[] guests)
    {
        foreach (var guest in guests)
        {
            await LocalFleet.UntilAsync(
                async () => (await fleet.Client.GetVmAsync(guest.Vm, TimeSpan.FromSeconds(5), Cancelled)) is { Enforcement: [{ State: EnforcementStates.Armed } host], Generation: var generation }
                    && host.ArmedGeneration == generation,
                $"{guest.Vm} to be armed", null, Cancelled);
            guest.ThrowIfBroken();
            guest.Confirm();
        }
    }

    // Whatever the agents were doing when they died.
    private static async Task EachHitOnceAsync(LocalFleet fleet, WorkingGuest[] guests)
    {
        foreach (var guest in guests)
        {
            await LocalFleet.UntilAsync(
                async () => await fleet.CountHitsAsync(guest.Vm, Cancelled) >= guest.MachineChecks, $"{guest.MachineChecks} hits of {guest.Vm}", null, Cancelled);
            Assert.Equal(guest.MachineChecks, await fleet.CountHitsAsync(guest.Vm, Cancelled));
        }
    }

    private static async Task NothingLeaksAsync(
        LocalFleet fleet, ChildProcess agent, WorkingGuest[] guests, string borrowed, List<(IReadOnlyDictionary<string, int> Descriptors, int Threads)> before)
    {
        await ProcessResources.BorrowsAsync(agent, borrowed, Cancelled);
        foreach (var (guest, (descriptors, threads)) in guests.Zip(before))
        {
            var pid = guest.Process.Pid;
            var grown = ProcessResources.Grown(descriptors, ProcessResources.Descriptors(pid));
            Assert.True(grown.Length == 0, $"{guest.Vm} holds more than before {Rounds} agents died: {grown}");
            // The runtime's pool grows and shrinks by itself, by less than one thread for each agent that died.
            Assert.InRange(ProcessResources.Threads(pid), 1, threads + Rounds - 1);
        }

        await agent.TerminateAsync();
        var state = Path.Combine(fleet.Root, Host);
        Assert.Equal(["vm-kvm.json", "vm-software.json"], Directory.GetFiles(Path.Combine(state, "attached")).Select(Path.GetFileName).Order());
        Assert.DoesNotContain(
            Directory.GetFiles(state, "*", SearchOption.AllDirectories), path => path.EndsWith(".tmp", StringComparison.Ordinal) || path.EndsWith(".new", StringComparison.Ordinal));
    }
}
