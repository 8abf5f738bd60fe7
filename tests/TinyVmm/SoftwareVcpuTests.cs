using Fleet.Contracts;
using Fleet.Tests.Shared;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm.Tests;

/// <summary>The vCPU that needs no /dev/kvm: same results, same machine checks.</summary>
public sealed class SoftwareVcpuTests
{
    private const ulong Page = 0x30_0000;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Commands_AnyMemory_EqualTheHostsArithmetic()
    {
        await using var vmm = await RunningVmm.StartWithAsync(SoftwareVirtualCpu.KindName, "0x0:2M,0x100001000:8M");
        var high = RunningVmm.HighMemory + 0x1f_f000;

        await vmm.Client.WriteAsync(0x10_0ffc, 8200, seed: 3, Cancelled);
        await vmm.Client.WriteAsync(high, 12288, seed: 4, Cancelled);
        await vmm.Client.StoreAsync(0x1f_fffc, 0xdead_beef, Cancelled);

        Assert.Equal(GuestArithmetic.PatternChecksum(0x10_0ffc, 8200, 3), RunningVmm.Dword((await vmm.Client.ChecksumAsync(0x10_0ffc, 8200, Cancelled)).Checksum));
        Assert.Equal(GuestArithmetic.PatternChecksum(high, 12288, 4), RunningVmm.Dword((await vmm.Client.ChecksumAsync(high, 12288, Cancelled)).Checksum));
        Assert.Equal("0xdeadbeef", (await vmm.Client.ReadAsync(0x1f_fffc, Cancelled)).Value);
        Assert.Equal("software", (await vmm.Client.StatusAsync(Cancelled)).Vcpu);
    }

    [Theory]
    [Trait("Invariant", "I1")]
    [InlineData("read", 0x30_0ff0UL)]
    [InlineData("store", 0x30_0004UL)]
    [InlineData("write", 0x2f_f000UL)]
    [InlineData("checksum", 0x2f_fff8UL)]
    public async Task Access_PoisonedPage_IsAMachineCheckWithExactAddress(string op, ulong gpa)
    {
        await using var vmm = await RunningVmm.StartWithAsync(SoftwareVirtualCpu.KindName);
        await vmm.Client.WriteAsync(Page - 4096, 12288, 7, Cancelled);
        vmm.Poison(Page);

        var answer = op switch
        {
            "read" => await vmm.Client.ReadAsync(gpa, Cancelled),
            "store" => await vmm.Client.StoreAsync(gpa, 1, Cancelled),
            "write" => await vmm.Client.WriteAsync(gpa, 12288, 9, Cancelled),
            _ => await vmm.Client.ChecksumAsync(gpa, 8192, Cancelled),
        };

        AssertMachineCheck(answer);
        Assert.True(vmm.Machine.Events.TryNext(out var queued));
        Assert.Equal(("mce-injected", op is "store" or "write" ? "write" : "read", HexAddress.Format(Math.Max(gpa, Page)), 0), (queued.Type, queued.Access, queued.GuestPhysicalAddress, queued.Vcpu));
        Assert.False(vmm.Machine.Events.TryNext(out _), "a marker is no failed memory of the host");
        var neighbour = await vmm.Client.ChecksumAsync(Page + 4096, 4096, Cancelled);
        Assert.Equal(GuestArithmetic.PatternChecksum(Page + 4096, 4096, 7), RunningVmm.Dword(neighbour.Checksum));
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Access_PoisonedPageAHundredTimes_IsAMachineCheckEveryTime()
    {
        await using var vmm = await RunningVmm.StartWithAsync(SoftwareVirtualCpu.KindName);
        vmm.Poison(Page);

        for (var i = 0; i < 100; i++)
        {
            AssertMachineCheck(i % 2 == 0 ? await vmm.Client.ReadAsync(Page, Cancelled) : await vmm.Client.StoreAsync(Page, 1, Cancelled));
        }

        Assert.Equal(100, (await vmm.Client.StatusAsync(Cancelled)).MachineChecks);
        Assert.Equal("running", (await vmm.Client.StatusAsync(Cancelled)).State);
    }

    // Without its program, or the tables and stack of its handler, no guest goes on.
    [Theory]
    [InlineData(0x1000UL)]
    [InlineData(0x2000UL)]
    [InlineData(0xf000UL)]
    public async Task Access_PoisonInTheGuestsOwnProgram_StopsTheGuest(ulong own)
    {
        await using var vmm = await RunningVmm.StartWithAsync(SoftwareVirtualCpu.KindName);
        vmm.Poison(own);
        vmm.Poison(Page);

        var refused = await Assert.ThrowsAsync<ControlException>(() => vmm.Client.ReadAsync(Page, Cancelled));

        Assert.Equal(ControlException.Failed, refused.Code);
        Assert.Equal("failed", (await vmm.Client.StatusAsync(Cancelled)).State);
    }

    // The process holds nothing of KVM; the same question finds it in a VMM that does.
    [Theory]
    [InlineData("software", false)]
    [InlineData("kvm", true)]
    public async Task Program_Vcpu_UsesKvmOnlyWhenAsked(string vcpu, bool usesKvm)
    {
        Requires.Userfaultfd();
        if (usesKvm)
        {
            Requires.Kvm();
        }

        await using var vmm = await VmmProcess.StartAsync("--memory", "8M", "--vcpu", vcpu);

        await vmm.Client.StoreAsync(0x10_0000, 5, Cancelled);

        Assert.Equal("0x5", (await vmm.Client.ReadAsync(0x10_0000, Cancelled)).Value);
        Assert.Equal(usesKvm, Directory.EnumerateFileSystemEntries($"/proc/{vmm.Pid}/fd").Any(fd => new FileInfo(fd).LinkTarget?.Contains("kvm", StringComparison.Ordinal) == true));
    }

    private static void AssertMachineCheck(CommandAnswer answer)
    {
        Assert.Equal(CommandAnswer.MachineCheck, answer.Outcome);
        Assert.Equal(("0x7", "0xbd80000000000134", HexAddress.Format(Page), "0x8c"), (answer.McgStatus, answer.Status, answer.Address, answer.Misc));
        Assert.Null(answer.Value);
        Assert.Null(answer.Checksum);
    }
}
