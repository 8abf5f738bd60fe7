using Fleet.Contracts;
using Fleet.Contracts.Handoff;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Migration;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm.Tests;

/// <summary>I1, I4, IT: what a stream delivers is exact; what it cannot deliver is said, and never becomes zeros.</summary>
[Trait("Invariant", "I1, I4, IT")]
public sealed class StreamTests
{
    private const string Software = SoftwareVirtualCpu.KindName;
    private const ulong Data = 0x10_0000;
    private const long Bytes = 1 << 20;
    private const ulong Lost = 0x14_0000;
    private const ulong Skipped = 0x16_0000;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Theory]
    [ClassData(typeof(Vcpus))]
    public async Task B16_MigrateOut_PoisonedAndSkippedPages_AreUndeliveredAndAllElseArrives(string vcpu)
    {
        const string Memory = "0x0:4M,0x100000000:2M";
        await using var source = await RunningVmm.StartWithAsync(vcpu, Memory);
        await using var target = await RunningVmm.StartIncomingAsync(vcpu, Memory);
        await source.Client.WriteAsync(Data, Bytes, 7, Cancelled);
        await source.Client.WriteAsync(RunningVmm.HighMemory + 4096, 8192, 9, Cancelled);
        source.Poison(Lost);
        source.Machine.Run.Skip = Frames(Skipped);
        Assert.Equal("incoming", (await target.Client.StatusAsync(Cancelled)).State);

        var answer = await source.Client.MigrateOutAsync(target.Machine.IncomingAddress!, Cancelled);

        Assert.Equal(StreamIdentity.Instance, answer.StreamTarget);
        var status = await source.Client.StatusAsync(Cancelled);
        Assert.Equal(("paused", answer.StreamTarget), (status.State, status.StreamTarget));
        Assert.Equal("loaded", (await target.Client.StatusAsync(Cancelled)).State);
        Assert.Equal([FrameOf(Lost), FrameOf(Skipped)], target.Machine.Run.Present.Undelivered!);
        Assert.True(target.IsHole(Lost) && target.IsHole(Skipped));
        Assert.Equal(ControlException.Held, (await Assert.ThrowsAsync<ControlException>(() => target.Client.ReadAsync(Data, Cancelled))).Code);

        target.Poison(Lost);
        target.Poison(Skipped);
        target.Machine.Run.Run();
        await AssertPatternAsync(target, Data, Lost);
        await AssertPatternAsync(target, Lost + 4096, Skipped);
        await AssertPatternAsync(target, Skipped + 4096, Data + (ulong)Bytes);
        Assert.Equal(GuestArithmetic.PatternChecksum(RunningVmm.HighMemory + 4096, 8192, 9), RunningVmm.Dword((await target.Client.ChecksumAsync(RunningVmm.HighMemory + 4096, 8192, Cancelled)).Checksum));
        Assert.Equal("0x0", (await target.Client.ReadAsync(0x30_0000, Cancelled)).Value);
        foreach (var page in (ulong[])[Lost, Skipped])
        {
            Assert.Equal((CommandAnswer.MachineCheck, HexAddress.Format(page)), await target.Client.ReadAsync(page + 4, Cancelled) is var check ? (check.Outcome, check.Address) : default);
        }
    }

    // The negative control: without a marker and a skip list the same pages arrive, with their data.
    [Fact]
    public async Task MigrateOut_NothingPoisoned_DeliversEverything()
    {
        await using var source = await RunningVmm.StartWithAsync(Software);
        await using var target = await RunningVmm.StartIncomingAsync(Software);
        await source.Client.WriteAsync(Data, Bytes, 7, Cancelled);

        await source.Client.MigrateOutAsync(target.Machine.IncomingAddress!, Cancelled);

        Assert.Empty(target.Machine.Run.Present.Undelivered!);
        target.Machine.Run.Run();
        await AssertPatternAsync(target, Data, Data + (ulong)Bytes);
    }

    // A page that the agent trapped without a marker blocks whoever reads it: in the skip list it is never read.
    [Fact]
    public async Task MigrateOut_TrappedPage_IsNeverReadIfSkippedAndElseTheStreamFails()
    {
        await using var source = await RunningVmm.StartWithAsync(Software, configure: options => options with { Limits = new StreamLimits(TimeSpan.FromSeconds(3), TimeSpan.FromSeconds(60)) });
        await using var target = await RunningVmm.StartIncomingAsync(Software);
        await source.Client.WriteAsync(Data, Bytes, 7, Cancelled);
        source.Trap(Lost);

        Assert.Equal(StreamException.TimedOut, await FailAsync(source, target.Machine.IncomingAddress!));
        await Deadline.UntilAsync(() => target.PageOf(Data) is { } page && page.All(value => value == 0), "the target has discarded all");
        Assert.Equal("incoming", (await target.Client.StatusAsync(Cancelled)).State);
        source.PoisonTrapped(Lost);
        await Deadline.UntilAsync(() => !source.Machine.IsReadBlocked, "the blocked access has ended");

        source.Trap(Skipped);
        source.Machine.Run.Skip = Frames(Skipped);
        await source.Client.MigrateOutAsync(target.Machine.IncomingAddress!, Cancelled);
        Assert.Equal([FrameOf(Lost), FrameOf(Skipped)], target.Machine.Run.Present.Undelivered!);
        source.PoisonTrapped(Skipped);
    }

    // The other end: a write that blocks in the target ends that stream, and can leave nothing in the RAM of the next.
    [Fact]
    public async Task MigrateOut_TrappedPageInTheTarget_FailsUntilThePageIsPoisoned()
    {
        await using var source = await RunningVmm.StartWithAsync(Software);
        await using var target = await RunningVmm.StartIncomingAsync(Software, configure: options => options with { Limits = new StreamLimits(TimeSpan.FromSeconds(3), TimeSpan.FromSeconds(60)) });
        await source.Client.WriteAsync(Data, Bytes, 7, Cancelled);
        target.Trap(Lost);

        Assert.Equal(StreamException.TimedOut, await FailAsync(source, target.Machine.IncomingAddress!));
        Assert.Equal(StreamException.Busy, await FailAsync(source, target.Machine.IncomingAddress!));
        Assert.Equal("incoming", (await target.Client.StatusAsync(Cancelled)).State);
        target.PoisonTrapped(Lost);
        string? failure;
        do
        {
            failure = await Record.ExceptionAsync(() => source.Client.MigrateOutAsync(target.Machine.IncomingAddress!, Cancelled)) is ControlException { Code: var code } ? code : null;
        }
        while (failure == StreamException.Busy);

        Assert.Null(failure);
        Assert.Equal([FrameOf(Lost)], target.Machine.Run.Present.Undelivered!);
        target.Machine.Run.Run();
        await AssertPatternAsync(target, Data, Lost);
        Assert.Equal(CommandAnswer.MachineCheck, (await target.Client.ReadAsync(Lost, Cancelled)).Outcome);
    }

    // What the target's agent armed before stays armed, whether the source has data there or zeros.
    [Theory]
    [ClassData(typeof(Vcpus))]
    public async Task MigrateOut_PagesArmedInTheTarget_StayArmed(string vcpu)
    {
        await using var source = await RunningVmm.StartWithAsync(vcpu);
        await using var target = await RunningVmm.StartIncomingAsync(vcpu);
        await source.Client.WriteAsync(Data, Bytes, 7, Cancelled);
        target.Poison(Lost);
        target.Poison(0x40_0000);

        await source.Client.MigrateOutAsync(target.Machine.IncomingAddress!, Cancelled);

        Assert.Equal([FrameOf(Lost), FrameOf(0x40_0000)], target.Machine.Run.Present.Undelivered!);
        target.Machine.Run.Run();
        await AssertPatternAsync(target, Data, Lost);
        await AssertPatternAsync(target, Lost + 4096, Data + (ulong)Bytes);
        Assert.Equal(CommandAnswer.MachineCheck, (await target.Client.ReadAsync(Lost, Cancelled)).Outcome);
        Assert.Equal(CommandAnswer.MachineCheck, (await target.Client.StoreAsync(0x40_0000, 1, Cancelled)).Outcome);
    }

    // The command that was under way goes on in the target, and its effects are the same.
    [Theory]
    [ClassData(typeof(Vcpus))]
    public async Task MigrateOut_BusyGuest_FinishesItsCommandInTheTarget(string vcpu)
    {
        await using var source = await RunningVmm.StartWithAsync(vcpu);
        await using var target = await RunningVmm.StartIncomingAsync(vcpu);
        var writing = source.Machine.Vcpu.ExecuteAsync(new GuestCommand(GuestOperation.Fill, Data, (ulong)Bytes, 7));

        await source.Client.MigrateOutAsync(target.Machine.IncomingAddress!, Cancelled);
        target.Machine.Run.Run();

        await AssertPatternAsync(target, Data, Data + (ulong)Bytes);
        await source.Client.ResumeAsync(Cancelled);
        Assert.IsType<GuestOutcome.Completed>(await writing);
    }

    [Theory]
    [ClassData(typeof(Vcpus))]
    public async Task StreamTarget_GuestRunsAgain_IsNullFromThenOn(string vcpu)
    {
        await using var source = await RunningVmm.StartWithAsync(vcpu, configure: options => options with { Barrier = true });
        await using var target = await RunningVmm.StartIncomingAsync(vcpu);
        using var listener = FakeAgent.Listen(source.HandoffPath);
        await using (var agent = await FakeAgent.AcceptAsync(listener))
        {
            await agent.RunAsync();
            await agent.UntilStateAsync(VmmStates.Running);
            await source.Client.WriteAsync(Data, Bytes, 7, Cancelled);
            Assert.Equal(StreamException.Unreachable, await FailAsync(source, "unix:/nonexistent/socket"));
            Assert.Null((await agent.UntilStateAsync(VmmStates.Held)).StreamTarget);

            await source.Client.MigrateOutAsync(target.Machine.IncomingAddress!, Cancelled);
            VmmState said;
            do
            {
                said = await agent.NextStateAsync();
            }
            while (said.StreamTarget is null);
            Assert.Equal((VmmStates.Held, StreamIdentity.Instance), (said.State, said.StreamTarget));
            await agent.HoldAsync();
            Assert.Equal(said, await agent.NextStateAsync());
        }

        await using var again = await FakeAgent.AcceptAsync(listener);
        Assert.Equal((VmmStates.Held, StreamIdentity.Instance), (again.Handoff.State, again.Handoff.StreamTarget));
        Assert.Equal(ControlException.Held, (await Assert.ThrowsAsync<ControlException>(() => source.Client.ResumeAsync(Cancelled))).Code);

        // The agent's permission alone does not end the operator's pause: still nothing ran.
        await again.RunAsync();
        Assert.Equal((VmmStates.Held, StreamIdentity.Instance), await again.NextStateAsync() is var held ? (held.State, held.StreamTarget) : default);
        await source.Client.ResumeAsync(Cancelled);
        Assert.Null((await again.UntilStateAsync(VmmStates.Running)).StreamTarget);
        Assert.Null((await source.Client.StatusAsync(Cancelled)).StreamTarget);
        await source.Client.PauseAsync(Cancelled);
        Assert.Null((await source.Client.StatusAsync(Cancelled)).StreamTarget);
    }

    public static TheoryData<string, string, string> Mismatches => new()
    {
        { StreamException.WrongVm, Software, "16M" },
        { StreamException.LayoutMismatch, Software, "0x0:8M,0x1000000:8M" },
        { StreamException.LayoutMismatch, Software, "8M" },
        { StreamException.VcpuMismatch, KvmVirtualCpu.KindName, "16M" },
    };

    [Theory]
    [MemberData(nameof(Mismatches))]
    public async Task MigrateOut_TargetIsAnother_FailsAndTheGuestCanGoOnAndTryAgain(string code, string vcpu, string memory)
    {
        await using var source = await RunningVmm.StartWithAsync(Software);
        await using var other = await RunningVmm.StartIncomingAsync(vcpu, memory, options => code == StreamException.WrongVm ? options with { Vm = "vm-2" } : options);
        await using var target = await RunningVmm.StartIncomingAsync(Software);
        await source.Client.WriteAsync(Data, Bytes, 7, Cancelled);

        Assert.Equal(code, await FailAsync(source, other.Machine.IncomingAddress!));
        Assert.Equal("incoming", (await other.Client.StatusAsync(Cancelled)).State);
        await source.Client.ResumeAsync(Cancelled);
        await source.Client.StoreAsync(Data, 0x1234, Cancelled);

        await source.Client.MigrateOutAsync(target.Machine.IncomingAddress!, Cancelled);
        target.Machine.Run.Run();
        Assert.Equal("0x1234", (await target.Client.ReadAsync(Data, Cancelled)).Value);
    }

    [Fact]
    public async Task MigrateOut_SecondStreamToALoadedTarget_IsRefusedAndChangesNothing()
    {
        await using var source = await RunningVmm.StartWithAsync(Software);
        await using var target = await RunningVmm.StartIncomingAsync(Software);
        await source.Client.WriteAsync(Data, Bytes, 7, Cancelled);
        await source.Client.MigrateOutAsync(target.Machine.IncomingAddress!, Cancelled);
        await source.Client.ResumeAsync(Cancelled);
        await source.Client.WriteAsync(Data, Bytes, 8, Cancelled);

        Assert.Equal(StreamException.AlreadyLoaded, await FailAsync(source, target.Machine.IncomingAddress!));

        target.Machine.Run.Run();
        await AssertPatternAsync(target, Data, Data + (ulong)Bytes);
        Assert.Equal(StreamException.AlreadyLoaded, await FailAsync(source, target.Machine.IncomingAddress!));
    }

    [Fact]
    public async Task MigrateOut_ThereAndBack_CarriesEveryWrite()
    {
        await using var first = await RunningVmm.StartWithAsync(Software);
        await using var second = await RunningVmm.StartIncomingAsync(Software);
        await using var third = await RunningVmm.StartIncomingAsync(Software);
        await first.Client.WriteAsync(Data, Bytes, 7, Cancelled);
        await first.Client.MigrateOutAsync(second.Machine.IncomingAddress!, Cancelled);
        second.Machine.Run.Run();
        await second.Client.StoreAsync(Data + (ulong)Bytes, 0x22, Cancelled);

        await second.Client.MigrateOutAsync(third.Machine.IncomingAddress!, Cancelled);
        third.Machine.Run.Run();

        await AssertPatternAsync(third, Data, Data + (ulong)Bytes);
        Assert.Equal("0x22", (await third.Client.ReadAsync(Data + (ulong)Bytes, Cancelled)).Value);
        Assert.Equal("held", (await second.Client.StatusAsync(Cancelled)).State);
    }

    [Fact]
    public async Task Incoming_BeforeItsRamIsHere_NothingMakesItRunOrChange()
    {
        await using var source = await RunningVmm.StartWithAsync(Software);
        await using var target = await RunningVmm.StartIncomingAsync(Software);
        using var listener = FakeAgent.Listen(target.HandoffPath);
        await using var agent = await FakeAgent.AcceptAsync(listener);
        Assert.Equal(VmmStates.Incoming, agent.Handoff.State);
        Assert.Contains(VmmCapabilities.Barrier, agent.Handoff.Capabilities);

        await agent.RunAsync();
        Assert.Equal(VmmStates.Incoming, (await agent.NextStateAsync()).State);
        Assert.Equal(ControlException.Held, (await Assert.ThrowsAsync<ControlException>(() => target.Client.ResumeAsync(Cancelled))).Code);
        Assert.Equal(ControlException.Held, (await Assert.ThrowsAsync<ControlException>(() => target.Client.DiscardAsync(Data, 4096, Cancelled))).Code);
        Assert.Equal(ControlException.Held, await FailAsync(target, "tcp:127.0.0.1:9"));

        // A permission that came too early does not count later.
        await source.Client.MigrateOutAsync(target.Machine.IncomingAddress!, Cancelled);
        var loaded = await agent.UntilStateAsync(VmmStates.Loaded);
        Assert.Empty(loaded.Undelivered!);
        Assert.Equal(VirtualCpuState.Paused, target.Machine.Vcpu.State);
        await agent.HoldAsync();
        Assert.Equal(VmmStates.Loaded, (await agent.NextStateAsync()).State);
        await agent.RunAsync();
        Assert.Null((await agent.UntilStateAsync(VmmStates.Running)).Undelivered);
    }

    [Theory]
    [InlineData("")]
    [InlineData("unix:relative")]
    [InlineData("tcp:192.0.2.1:80")]
    [InlineData("tcp:0.0.0.0:80")]
    [InlineData("tcp:localhost:80")]
    [InlineData("tcp:127.0.0.1:65536")]
    [InlineData("tcp:127.0.0.1:-1")]
    [InlineData("tcp:127.0.0.1")]
    [InlineData("tcp::")]
    public async Task MigrateOut_EndpointIsNone_IsRefusedAndTheGuestRunsOn(string to)
    {
        await using var source = await RunningVmm.StartWithAsync(Software);

        Assert.Equal(ControlException.BadRequest, (await Assert.ThrowsAsync<ControlException>(() => source.Client.MigrateOutAsync(to, Cancelled))).Code);

        Assert.Equal("running", (await source.Client.StatusAsync(Cancelled)).State);
    }

    private static async Task<string> FailAsync(RunningVmm source, string to)
    {
        var failed = await Assert.ThrowsAsync<ControlException>(() => source.Client.MigrateOutAsync(to, Cancelled));
        Assert.Null((await source.Client.StatusAsync(Cancelled)).StreamTarget);
        Assert.Equal(VirtualCpuState.Paused, source.Machine.Vcpu.State);
        return failed.Code;
    }

    private static async Task AssertPatternAsync(RunningVmm vmm, ulong start, ulong end)
    {
        var checksum = await vmm.Client.ChecksumAsync(start, (long)(end - start), Cancelled);
        Assert.Equal(GuestArithmetic.PatternChecksum(start, end - start, 7), RunningVmm.Dword(checksum.Checksum));
    }

    private static HandoffFrames FrameOf(ulong page) => new((long)(page >> 12), (long)(page >> 12) + 1);

    private static FrameRanges Frames(ulong page) => FrameRanges.TryCreate([FrameOf(page)], out var frames) ? frames : throw new ArgumentOutOfRangeException(nameof(page));
}
