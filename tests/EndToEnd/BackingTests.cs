using Fleet.Contracts;
using Fleet.Contracts.Pages;
using Fleet.Tests.Shared;
using Fleet.TinyVmm.Control;

namespace Fleet.EndToEnd.Tests;

/// <summary>Poison follows a VM whose memory is no memfd of 4 KiB pages, through the whole of Fleet.</summary>
[Trait("Invariant", "I1")]
public sealed class BackingTests
{
    private const int HugeFrames = 512;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("marker", "kvm")]
    [InlineData("trap", "software")]
    public async Task Migrate_AnonymousMemory_TargetEnforcesBeforeTheGuestRuns(string policy, string vcpu)
    {
        await using var moving = await MovingVm.StartBackedAsync("anonymous", policy, vcpu);
        await moving.PoisonAsync(20);
        await MovingVm.AssertMachineCheckAsync(moving.Guest, 20);

        await moving.StreamAsync();
        var permit = await moving.PermitAsync();
        await moving.CompleteAsync();

        await moving.AssertOwnerAsync(MovingVm.Target, permit.Epoch);
        await moving.AssertExactlyArmedAsync(moving.Guest, 20);
    }

    /// <summary>One bad frame costs its huge page: said on the source, part of the set once the VM moves, and lost on the target too.</summary>
    [Theory]
    [InlineData("kvm")]
    [InlineData("software")]
    public async Task Migrate_HugePages_LoseTheWholePageAndSaySo(string vcpu)
    {
        using var pages = await HugePages.ReserveAsync(2 * 32);
        await using var moving = await MovingVm.StartBackedAsync("hugetlb", "marker", vcpu);
        var beyond = FrameMath.AddressOf(MovingVm.FirstFrame + HugeFrames);
        await moving.Guest.StoreAsync(beyond, 0x1234, Cancelled);
        await moving.PoisonAsync(20);
        await MovingVm.AssertMachineCheckAsync(moving.Guest, 20);
        await MovingVm.AssertMachineCheckAsync(moving.Guest, 0);
        var told = Assert.Single((await moving.Fleet.Client.GetPagesAsync(MovingVm.Vm, Cancelled)).Items).Hosts.Single(host => host.Host == MovingVm.Source);
        Assert.Equal((21, (string?)null), (told.ArmedShift, told.Reason));

        await moving.StreamAsync();
        await moving.PermitAsync();
        await moving.CompleteAsync();

        // The list comes in parts, the number does not.
        Assert.Equal(HugeFrames, (await moving.Fleet.Client.GetVmAsync(MovingVm.Vm, null, Cancelled)).PoisonedPages);
        Assert.All(
            (await moving.Fleet.Client.GetPagesAsync(MovingVm.Vm, Cancelled)).Items,
            page => Assert.InRange(page.Frame, MovingVm.FirstFrame, MovingVm.FirstFrame + HugeFrames - 1));
        foreach (var page in (int[])[0, 20, HugeFrames - 1])
        {
            await MovingVm.AssertMachineCheckAsync(moving.Guest, page);
        }

        Assert.Equal((CommandAnswer.Data, "0x1234"), await moving.Guest.ReadAsync(beyond, Cancelled) is var read ? (read.Outcome, read.Value) : default);
    }
}
