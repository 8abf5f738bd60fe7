using Fleet.Contracts;
using Fleet.Linux.Userfaultfd;
using Fleet.TinyVmm.Control;

namespace Fleet.TinyVmm.Tests;

/// <summary>An agent that leaves registered holes, and answers the first access with poison.</summary>
[Trait("Invariant", "I1")]
public sealed class TrapPolicyTests
{
    private const ulong Page = 0x30_0000;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Theory]
    [ClassData(typeof(Vcpus))]
    public async Task Access_TrappedHole_IsSeenAsAnEventAndBecomesAMachineCheck(string vcpu)
    {
        await using var vmm = await RunningVmm.StartWithAsync(vcpu);
        var seen = new List<ulong>();
        var errors = new List<Exception>();
        using var loop = new UffdEventLoop(errors.Add);
        loop.Add(vmm.Machine.Userfaultfd, events =>
        {
            foreach (var e in events)
            {
                lock (seen)
                {
                    seen.Add(e.Address & ~4095UL);
                }

                vmm.Machine.Userfaultfd.Poison(e.Address & ~4095UL, 4096);
            }
        });
        await vmm.Client.WriteAsync(Page, 3 * 4096, 7, Cancelled);

        for (var i = 0UL; i < 3; i++)
        {
            vmm.Trap(Page + (i * 4096));
            var answer = i == 1 ? await vmm.Client.StoreAsync(Page + (i * 4096) + 8, 1, Cancelled) : await vmm.Client.ReadAsync(Page + (i * 4096) + 8, Cancelled);
            Assert.Equal((CommandAnswer.MachineCheck, HexAddress.Format(Page + (i * 4096))), (answer.Outcome, answer.Address));
        }

        loop.Remove(vmm.Machine.Userfaultfd);
        Assert.Empty(errors);
        Assert.Equal([vmm.AddressOf(Page), vmm.AddressOf(Page + 4096), vmm.AddressOf(Page + 8192)], seen.Distinct());
        Assert.Equal("running", (await vmm.Client.StatusAsync(Cancelled)).State);
    }
}
