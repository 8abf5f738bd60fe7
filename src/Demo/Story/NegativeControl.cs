using Fleet.Contracts;
using Fleet.Demo.Running;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Linux.Userfaultfd;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;

namespace Fleet.Demo.Story;

/// <summary>The same migration with protection off: what happens without Fleet.</summary>
internal sealed class NegativeControl(Scene scene)
{
    public async Task RunAsync()
    {
        var board = scene.Board;
        board.Chapter("Negative control: the same migration with protection off");
        var (sourceVmm, source) = await scene.Fleet.StartVmmAsync("vm-control", Scene.Memory, null, scene.CancellationToken, new VmmStart(Vcpu: scene.Vcpu));
        await using var _ = source;
        await board.DoAsync("a guest without an agent writes the same data", () => source.WriteAsync(Scene.Data, Scene.DataBytes, Scene.Seed, scene.CancellationToken));
        var before = await source.ReadAsync(Scene.Struck, scene.CancellationToken);
        board.Check("It reads what it wrote", before.Value == Evidence.Hex(GuestArithmetic.Pattern(Scene.Struck, Scene.Seed)), Evidence.Describe(before));

        FailPage(await source.StatusAsync(scene.CancellationToken));
        var failed = await source.ReadAsync(Scene.Struck, scene.CancellationToken);
        board.Check("Its host's kernel refuses the failed page: machine check", Evidence.IsMachineCheck(failed, Scene.Frame), Evidence.Describe(failed));

        var endpoint = $"unix:{Path.Combine(scene.Fleet.Root, "control.stream")}";
        var (_, target) = await board.DoAsync("it migrates to a VMM that nobody guards", async () =>
        {
            var started = await scene.Fleet.StartVmmAsync(
                "vm-control", Scene.Memory, null, scene.CancellationToken, new VmmStart(Incoming: endpoint, Vcpu: scene.Vcpu, Unprotected: true));
            await source.MigrateOutAsync(endpoint, scene.CancellationToken);
            await started.Client.ResumeAsync(scene.CancellationToken);
            return started;
        });
        await using var __ = target;
        await sourceVmm.TerminateAsync();
        var after = await target.ReadAsync(Scene.Struck, scene.CancellationToken);
        var checks = (await target.StatusAsync(scene.CancellationToken)).MachineChecks;
        board.Check("There it reads zeros and does not notice: the corruption that Fleet prevents", after is { Outcome: CommandAnswer.Data, Value: "0x0" } && checks == 0,
            $"{Evidence.Describe(after)}, machine checks {checks}");
    }

    // Stands for the host's own kernel, which makes a page with an uncorrectable error inaccessible.
    private static void FailPage(StatusAnswer vmm)
    {
        var region = vmm.Regions[0];
        using var process = Pidfd.Open(vmm.Pid);
        using var userfaultfd = new UserfaultfdHandle(process.GetFd(vmm.Userfaultfd));
        using var memory = new MemoryFile(process.GetFd(region.MemfdNumber ?? throw new InvalidOperationException("the demo's guest has a memfd")));
        var start = HexAddress.TryParse(region.HostVirtualAddress, out var address) ? address : throw new FormatException(region.HostVirtualAddress);
        userfaultfd.Register(start + Scene.Struck, FrameMath.FrameBytes, UffdRegisterMode.Missing | UffdRegisterMode.Minor);
        memory.PunchHole((long)Scene.Struck, FrameMath.FrameBytes);
        if (userfaultfd.Poison(start + Scene.Struck, FrameMath.FrameBytes) is { Succeeded: false } result)
        {
            throw new InvalidOperationException($"the page could not be made to fail: UFFDIO_POISON {result.Error}");
        }
    }
}
