using Fleet.Contracts;
using Fleet.Contracts.Handoff;
using Fleet.Linux.Memory;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm.Tests;

/// <summary>I1, I4, IT over three processes, as the agents of two hosts see it.</summary>
[Trait("Invariant", "I1, I4, IT")]
public sealed class MigrationStoryTests
{
    private const ulong Data = 0x10_0000;
    private const long Bytes = 256 * 1024;
    private const ulong Lost = 0x12_0000;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Theory]
    [ClassData(typeof(Vcpus))]
    public async Task Story_SourceToTargetProcess_CarriesTheGuestAndLeavesThePoisonAHole(string vcpu)
    {
        Requires.Userfaultfd();
        if (vcpu == KvmVirtualCpu.KindName)
        {
            Requires.Kvm();
        }

        await using var source = await VmmProcess.StartAsync("--memory", "4M", "--vcpu", vcpu, "--barrier");
        await using var failing = await VmmProcess.StartAsync("--memory", "4M", "--vcpu", vcpu, "--incoming", "tcp:127.0.0.1:0");
        await using var target = await VmmProcess.StartAsync("--memory", "4M", "--vcpu", vcpu, "--incoming", "tcp:127.0.0.1:0");
        using var sourceSocket = FakeAgent.Listen(source.HandoffPath);
        using var targetSocket = FakeAgent.Listen(target.HandoffPath);
        await using var sourceAgent = await FakeAgent.AcceptAsync(sourceSocket);
        await using var targetAgent = await FakeAgent.AcceptAsync(targetSocket);
        Assert.Equal((VmmStates.Held, VmmStates.Incoming), (sourceAgent.Handoff.State, targetAgent.Handoff.State));

        await sourceAgent.AttachedAsync();
        await sourceAgent.RunAsync();
        await sourceAgent.UntilStateAsync(VmmStates.Running);
        await source.Client.WriteAsync(Data, Bytes, 7, Cancelled);
        Poison(sourceAgent, Lost);
        Assert.Equal(CommandAnswer.MachineCheck, (await source.Client.ReadAsync(Lost, Cancelled)).Outcome);

        // A target that is gone: nothing is attested, and the next one is as good.
        await failing.KillAsync();
        Assert.Equal("stream-unreachable", (await Assert.ThrowsAsync<ControlException>(() => source.Client.MigrateOutAsync(failing.Incoming, Cancelled))).Code);
        Assert.Null((await source.Client.StatusAsync(Cancelled)).StreamTarget);

        Assert.Equal(target.Instance, (await source.Client.MigrateOutAsync(target.Incoming, Cancelled)).StreamTarget);
        await sourceAgent.HoldAsync();
        VmmState attested;
        do
        {
            attested = await sourceAgent.UntilStateAsync(VmmStates.Held);
        }
        while (attested.StreamTarget is null);
        Assert.Equal(target.Instance, attested.StreamTarget);

        var loaded = await targetAgent.UntilStateAsync(VmmStates.Loaded);
        Assert.Equal([new HandoffFrames((long)(Lost >> 12), (long)(Lost >> 12) + 1)], loaded.Undelivered!);
        Assert.Equal(ControlException.Held, (await Assert.ThrowsAsync<ControlException>(() => target.Client.ResumeAsync(Cancelled))).Code);
        Poison(targetAgent, Lost);
        await targetAgent.AttachedAsync();
        await targetAgent.RunAsync();
        await targetAgent.UntilStateAsync(VmmStates.Running);

        await AssertPatternAsync(target, Data, Lost);
        await AssertPatternAsync(target, Lost + 4096, Data + (ulong)Bytes);
        Assert.Equal(CommandAnswer.MachineCheck, (await target.Client.ReadAsync(Lost + 8, Cancelled)).Outcome);
        Assert.Equal(HexAddress.Format(Lost + 8), (await targetAgent.NextEventAsync()).GuestPhysicalAddress);
        Assert.Equal(("held", target.Instance), await source.Client.StatusAsync(Cancelled) is var status ? (status.State, status.StreamTarget) : default);
    }

    // As an agent does it, with nothing but what was handed over.
    private static void Poison(FakeAgent agent, ulong page)
    {
        Assert.True(HexAddress.TryParse(agent.Handoff.Regions[0].HostVirtualAddress, out var host));
        var userfaultfd = new UserfaultfdHandle(agent.Descriptors[0]);
        userfaultfd.Register(host + page, 4096, UffdRegisterMode.Missing | UffdRegisterMode.Minor);
        new MemoryFile(agent.Descriptors[1]).PunchHole((long)page, 4096);
        Assert.True(userfaultfd.Poison(host + page, 4096).Succeeded);
    }

    private static async Task AssertPatternAsync(VmmProcess vmm, ulong start, ulong end)
    {
        var checksum = await vmm.Client.ChecksumAsync(start, (long)(end - start), Cancelled);
        Assert.Equal(GuestArithmetic.PatternChecksum(start, end - start, 7), RunningVmm.Dword(checksum.Checksum));
    }
}
