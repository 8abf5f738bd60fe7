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
        var rounds = Environment.GetEnvironmentVariable("FLEET_FULL") == "1" ? 40 : 5;
        var unfinished = 0;
        for (var round = 0; round < rounds; round++)
        {
            using var qemu = await QemuProcess.StartAsync(_sockets.FullName, backend);
            // Pages that do not touch: each is an own registration, an own zap and an own marker.
            var pages = Enumerable.Range(0, 1000).Select(i => new PageKey(300 + (2 * i), 12)).ToArray();
            var ram = QemuRam.ParseHostAddress(await qemu.MonitorAsync("gpa2hva 0x0") ?? string.Empty)!.Value.Address;
            await PrepareAsync(qemu.Vm(round + 1, pages));

            using (var agent = StartAgent())
            {
                KillAfterAttaching(agent, qemu, TimeSpan.FromMilliseconds(round * 20.0 / rounds));
                await agent.WaitForExitAsync(TestContext.Current.CancellationToken);
            }

            Assert.StartsWith("VM status: paused", await qemu.MonitorAsync("info status"), StringComparison.Ordinal);
            Assert.Single(qemu.Userfaultfds);
            unfinished += Armed(qemu, ram, pages) < pages.Length ? 1 : 0;

            using var next = StartAgent();
            await TestAgent.UntilAsync(() => Armed(qemu, ram, pages) == pages.Length);
            next.Kill();
            await next.WaitForExitAsync(TestContext.Current.CancellationToken);
            Assert.Single(qemu.Userfaultfds);
            Assert.All(pages, page => Assert.Equal(Errno.EFAULT, qemu.Read(ram + (ulong)(page.Frame * QemuProcess.PageBytes)).Error));
            Assert.Equal(Errno.None, qemu.Read(ram + (301 * QemuProcess.PageBytes)).Error);
        }

        Assert.True(unfinished > 0, "no agent was killed before it had armed everything");
        TestContext.Current.TestOutputHelper!.WriteLine($"{backend}: {unfinished} of {rounds} agents were killed before everything was armed");
    }

    // As soon as the injected call shows, and then after a while; without pauses, since all of it takes milliseconds.
    private static void KillAfterAttaching(Process agent, QemuProcess qemu, TimeSpan after)
    {
        var started = Stopwatch.StartNew();
        while (qemu.Userfaultfds.Count == 0)
        {
            Assert.True(started.Elapsed < TimeSpan.FromSeconds(60) && !agent.HasExited, "the agent did not attach");
        }

        for (var moment = Stopwatch.StartNew(); moment.Elapsed < after;)
        {
            Thread.SpinWait(50);
        }

        agent.Kill();
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
