using Fleet.Contracts;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;

namespace Fleet.TinyVmm.Tests;

/// <summary>I1: an access to a poisoned page ends in a machine check, never in data.</summary>
[Trait("Invariant", "I1")]
public sealed class MachineCheckTests
{
    private const ulong Page = 0x30_0000;
    private const long PageBytes = 4096;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    // The negative control: the same page, taken away but not trapped, is the silent corruption that poison must prevent.
    [Fact]
    public async Task Read_DiscardedPageWithoutPoison_ReturnsZeros()
    {
        await using var vmm = await RunningVmm.StartAsync();
        await vmm.Client.WriteAsync(Page, PageBytes, 7, Cancelled);

        await vmm.Client.DiscardAsync(Page, PageBytes, Cancelled);

        Assert.Equal("0x0", (await vmm.Client.ReadAsync(Page + 8, Cancelled)).Value);
        var checksum = await vmm.Client.ChecksumAsync(Page, PageBytes, Cancelled);
        Assert.Equal(GuestArithmetic.ZeroChecksum((ulong)PageBytes), RunningVmm.Dword(checksum.Checksum));
    }

    [Theory]
    [InlineData("read", 0x30_0ff0UL)]
    [InlineData("store", 0x30_0004UL)]
    [InlineData("write", 0x2f_f000UL)]
    [InlineData("checksum", 0x2f_fff8UL)]
    public async Task Access_PoisonedPage_IsAMachineCheckWithItsAddress(string op, ulong gpa)
    {
        await using var vmm = await RunningVmm.StartAsync();
        await vmm.Client.WriteAsync(Page - 4096, 3 * PageBytes, 7, Cancelled);
        vmm.Poison(Page);

        var answer = op switch
        {
            "read" => await vmm.Client.ReadAsync(gpa, Cancelled),
            "store" => await vmm.Client.StoreAsync(gpa, 1, Cancelled),
            "write" => await vmm.Client.WriteAsync(gpa, 3 * PageBytes, 9, Cancelled),
            _ => await vmm.Client.ChecksumAsync(gpa, 2 * PageBytes, Cancelled),
        };

        AssertMachineCheck(answer, Page);
        Assert.Equal(1, vmm.Machine.Vcpu.MachineChecks);
        Assert.True(vmm.Machine.Events.TryNext(out var queued));
        Assert.Equal(op is "store" or "write" ? "write" : "read", queued.Access);
        Assert.Equal(HexAddress.Format(Math.Max(gpa, Page)), queued.GuestPhysicalAddress);
        Assert.Equal(0, queued.Vcpu);
    }

    [Fact]
    public async Task Access_PoisonedPageAboveFourGigabytes_IsAMachineCheckWithItsTrueAddress()
    {
        await using var vmm = await RunningVmm.StartAsync("0x0:16M,0x100000000:1G");
        const ulong High = RunningVmm.HighMemory + 0x1234_5000;
        await vmm.Client.WriteAsync(High - 4096, 3 * PageBytes, 7, Cancelled);
        vmm.Poison(High);

        AssertMachineCheck(await vmm.Client.ReadAsync(High + 16, Cancelled), High);
        AssertMachineCheck(await vmm.Client.ChecksumAsync(High - 4096, 3 * PageBytes, Cancelled), High);

        Assert.True(vmm.Machine.Events.TryNext(out var queued));
        Assert.Equal(HexAddress.Format(High + 16), queued.GuestPhysicalAddress);
    }

    [Fact]
    public async Task Access_NeighboursOfPoisonedPage_AreIntact()
    {
        await using var vmm = await RunningVmm.StartAsync();
        await vmm.Client.WriteAsync(Page - 4096, 3 * PageBytes, 7, Cancelled);
        vmm.Poison(Page);

        AssertMachineCheck(await vmm.Client.ChecksumAsync(Page - 4096, 3 * PageBytes, Cancelled), Page);
        foreach (var neighbour in (ulong[])[Page - 4096, Page + 4096])
        {
            var checksum = await vmm.Client.ChecksumAsync(neighbour, PageBytes, Cancelled);
            Assert.Equal(GuestArithmetic.PatternChecksum(neighbour, (ulong)PageBytes, 7), RunningVmm.Dword(checksum.Checksum));
        }
    }

    [Fact]
    public async Task Access_PoisonedPageAgainAndAgain_IsAMachineCheckEveryTime()
    {
        await using var vmm = await RunningVmm.StartAsync();
        await vmm.Client.StoreAsync(Page + 4096, 0x1234, Cancelled);
        vmm.Poison(Page);

        for (var i = 0; i < 100; i++)
        {
            AssertMachineCheck(
                i % 2 == 0 ? await vmm.Client.ReadAsync(Page, Cancelled) : await vmm.Client.StoreAsync(Page, 1, Cancelled), Page);
        }

        Assert.Equal("0x1234", (await vmm.Client.ReadAsync(Page + 4096, Cancelled)).Value);
        Assert.Equal(100, (await vmm.Client.StatusAsync(Cancelled)).MachineChecks);
    }

    // A balloon that gives a poisoned page back must not make it an ordinary one (shmem keeps the marker).
    [Fact]
    public async Task Discard_PoisonedPage_StaysPoisoned()
    {
        await using var vmm = await RunningVmm.StartAsync();
        vmm.Poison(Page);

        await vmm.Client.DiscardAsync(Page, PageBytes, Cancelled);

        AssertMachineCheck(await vmm.Client.ReadAsync(Page, Cancelled), Page);
    }

    // The VMM's own accesses go through the kernel: an error, and the process lives on.
    [Fact]
    public async Task ReadByTheVmmItself_PoisonedPage_IsAnError()
    {
        await using var vmm = await RunningVmm.StartAsync();
        vmm.Poison(Page);

        Assert.Equal(Errno.EFAULT, ProcessMemory.Read(Environment.ProcessId, vmm.AddressOf(Page), new byte[16]));
        Assert.Throws<LinuxException>(() => vmm.Machine.Memory.Write(Page, [1, 2, 3, 4]));
    }

    // Tables, code, stack: without its own program the guest cannot handle anything. It must stop, not go on.
    [Theory]
    [InlineData(0x1000UL)]
    [InlineData(0x2000UL)]
    [InlineData(0xf000UL)]
    public async Task Access_PoisonInTheGuestsOwnProgram_StopsTheGuest(ulong own)
    {
        await using var vmm = await RunningVmm.StartAsync();
        await vmm.Client.WriteAsync(Page, PageBytes, 7, Cancelled);
        vmm.Poison(own);
        vmm.Poison(Page);

        var refused = await Assert.ThrowsAsync<ControlException>(() => vmm.Client.ReadAsync(Page, Cancelled));

        Assert.Equal(ControlException.Failed, refused.Code);
        var status = await vmm.Client.StatusAsync(Cancelled);
        Assert.Equal("failed", status.State);
        Assert.NotNull(status.Failure);
        Assert.Equal(ControlException.Failed, (await Assert.ThrowsAsync<ControlException>(() => vmm.Client.PauseAsync(Cancelled))).Code);
    }

    // A trapped page that nobody serves blocks the vCPU; poisoned in the end, it is a machine check for the waiting command.
    [Fact]
    public async Task Read_TrappedPageWithoutAnswer_TimesOutAndNeverReturnsData()
    {
        await using var vmm = await RunningVmm.StartAsync(commandTimeout: TimeSpan.FromSeconds(3));
        await vmm.Client.WriteAsync(Page, PageBytes, 7, Cancelled);
        vmm.Trap(Page);

        var blocked = await Assert.ThrowsAsync<ControlException>(() => vmm.Client.ReadAsync(Page, Cancelled));
        var next = await Assert.ThrowsAsync<ControlException>(() => vmm.Client.ReadAsync(Page + 4096, Cancelled));
        Assert.Equal((ControlException.TimedOut, ControlException.TimedOut), (blocked.Code, next.Code));
        Assert.Equal("running", (await vmm.Client.StatusAsync(Cancelled)).State);

        vmm.PoisonTrapped(Page);
        await Deadline.UntilAsync(() => vmm.Machine.Vcpu.MachineChecks == 1, "the blocked access is a machine check");
        AssertMachineCheck(await vmm.Client.ReadAsync(Page, Cancelled), Page);
    }

    private static void AssertMachineCheck(CommandAnswer answer, ulong page)
    {
        Assert.Equal(CommandAnswer.MachineCheck, answer.Outcome);
        Assert.Equal(("0x7", "0xbd80000000000134", "0x8c"), (answer.McgStatus, answer.Status, answer.Misc));
        Assert.Equal(HexAddress.Format(page), answer.Address);
        Assert.Null(answer.Value);
        Assert.Null(answer.Checksum);
    }
}
