using System.Diagnostics;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.HostAgent.Attach.Qemu;
using Fleet.Linux;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>The agent as a process of its own, killed with SIGKILL while it attaches to stock QEMU and arms.</summary>
public sealed class QemuCrashTests : IDisposable
{
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");
    private readonly DirectoryInfo _sockets = Directory.CreateTempSubdirectory("fq-");

    public QemuCrashTests() => Requires.Qemu();

    [Theory]
    [Trait("Invariant", "I6")]
    [InlineData(QemuProcess.Memfd)]
    [InlineData(QemuProcess.Anonymous)]
    public async Task Kill_AtAnyMomentOfAttachingAndArming_NoHarmIsDoneAndTheNextAgentCarriesOn(string backend)
    {
        var rounds = Environment.GetEnvironmentVariable("FLEET_FULL") == "1" ? 40 : 8;
        using var qemu = await QemuProcess.StartAsync(_sockets.FullName, backend);
        // Pages that do not touch: each is an own registration, an own zap and an own marker.
        var pages = Enumerable.Range(0, 400).Select(i => new PageKey(300 + (2 * i), 12)).ToArray();
        var ram = QemuRam.ParseHostAddress(await qemu.MonitorAsync("gpa2hva 0x0") ?? string.Empty)!.Value.Address;
        await PrepareAsync(qemu.Vm(1, pages));

        var armedBefore = 0;
        var killedWhileArming = 0;
        for (var round = 0; round < rounds; round++)
        {
            using var agent = StartAgent();
            // From the connection on: the later rounds let it get further. The wait is only for a moment to strike at.
            await TestAgent.UntilAsync(() => qemu.Userfaultfds.Count > 0 || agent.HasExited);
            var moment = Stopwatch.StartNew();
            var strike = round * round * 0.7;
            await TestAgent.UntilAsync(() => moment.Elapsed.TotalMilliseconds >= strike);
            agent.Kill();
            await agent.WaitForExitAsync(TestContext.Current.CancellationToken);

            Assert.StartsWith("VM status: paused", await qemu.MonitorAsync("info status"), StringComparison.Ordinal);
            Assert.Single(qemu.Userfaultfds);
            var armed = Armed(qemu, ram, pages);
            Assert.True(armed >= armedBefore, $"round {round}: {armedBefore} pages were armed, and now {armed}");
            killedWhileArming += armed > 0 && armed < pages.Length ? 1 : 0;
            armedBefore = armed;
        }

        using var last = StartAgent();
        await TestAgent.UntilAsync(() => Armed(qemu, ram, pages) == pages.Length);
        last.Kill();
        await last.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.All(pages, page => Assert.Equal(Errno.EFAULT, qemu.Read(ram + (ulong)(page.Frame * QemuProcess.PageBytes)).Error));
        Assert.Equal(Errno.None, qemu.Read(ram + (301 * QemuProcess.PageBytes)).Error);
        TestContext.Current.TestOutputHelper!.WriteLine($"{backend}: {killedWhileArming} of {rounds} agents were killed with some pages armed and others not");
    }

    public void Dispose()
    {
        _root.Delete(recursive: true);
        _sockets.Delete(recursive: true);
    }

    // What an agent that had been told of the VM would have left.
    private async Task PrepareAsync(DesiredVm vm)
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName);
        agent.Store.Save(vm);
    }

    private Process StartAgent() => Process.Start(new ProcessStartInfo(
        Path.Combine(AppContext.BaseDirectory, "Fleet.HostAgent"),
        [
            "--Agent:Host=host-a", "--Agent:ControlPlane=http://127.0.0.1:9", "--Agent:JoinToken=nobody answers", $"--Agent:StateFolder={_root.FullName}",
            $"--Agent:AllowedPaths={_sockets.FullName}",
        ]) { RedirectStandardOutput = false })!;

    private static int Armed(QemuProcess qemu, ulong ram, PageKey[] pages) => pages.Count(page => qemu.HasMarker(ram + (ulong)(page.Frame * QemuProcess.PageBytes)));
}
