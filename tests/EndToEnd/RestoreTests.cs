using Fleet.Demo.Running;

namespace Fleet.EndToEnd.Tests;

/// <summary>The control plane's database is put back from a backup under a fleet that has moved on: real processes, real verbs.</summary>
[Trait("Invariant", "I2")]
[Trait("Invariant", "I4")]
public sealed class RestoreTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    /// <summary>The restored database knows one of three poisoned pages, and the wrong owner.</summary>
    [Theory]
    [InlineData("software")]
    [InlineData("kvm")]
    public async Task B17_B18_Restore_AfterTheVmMovedAndFailedOn_GuestRunsOnWhereItIsWithEveryPagePoisoned(string vcpu)
    {
        await using var moving = await MovingVm.StartAsync(vcpu: vcpu);
        await moving.PoisonAsync(20);
        var backup = Path.Combine(moving.Fleet.Root, "backup.db");
        Assert.Equal(0, await moving.Fleet.RunVerbAsync("backup", backup, Cancelled));

        await moving.PoisonAsync(21);
        await moving.StreamAsync();
        await moving.PermitAsync();
        await moving.CompleteKeepingSourceAsync();
        await MovingVm.FailMemoryAsync(moving.TargetGuest, 40);
        await moving.ReportedAsync(40);
        Assert.Equal(1, await moving.Fleet.RunVerbAsync("restore", backup, Cancelled));

        await moving.Fleet.Api!.TerminateAsync();
        Assert.Equal(0, await moving.Fleet.RunVerbAsync("restore", backup, Cancelled));
        await moving.Fleet.StartApiAsync(Cancelled);
        await LocalFleet.UntilAsync(
            async () =>
            {
                Assert.Equal("running", (await moving.TargetGuest.StatusAsync(Cancelled)).State);
                return !(await moving.Fleet.Client.GetVmAsync(MovingVm.Vm, null, Cancelled)).Quarantined;
            },
            "the end of the quarantine", moving.Agents[MovingVm.Target], Cancelled);

        await moving.AssertOwnerAsync(MovingVm.Target);
        var vm = await moving.Fleet.Client.GetVmAsync(MovingVm.Vm, TimeSpan.FromSeconds(20), Cancelled);
        Assert.Equal((3, "armed"), (vm.PoisonedPages, vm.Enforcement[0].State));
        await moving.AssertExactlyArmedAsync(moving.TargetGuest, 20, 21, 40);
        await MovingVm.AssertIsNotRunningAsync(moving.Guest);
        await moving.AssertSourceIsHeldAsync();
        Assert.All(moving.Agents.Values, agent => Assert.False(agent.HasExited));

        // The fleet is whole again: the right was taken anew where the guest runs, and the VM moves as any other.
        await moving.EndSourceAsync();
        await moving.StreamAsync("m-back", MovingVm.Source);
        await moving.PermitAsync("m-back");
        await moving.CompleteAsync("m-back");
        await moving.AssertExactlyArmedAsync(moving.Guest, 20, 21, 40);
        await moving.AssertOwnerAsync(MovingVm.Source);
    }
}
