using System.Diagnostics;
using Fleet.Tests.Shared;
using Fleet.TinyVmm.Control;

namespace Fleet.TinyVmm.Tests;

/// <summary>The program as a process of its own.</summary>
public sealed class ProcessTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("TERM")]
    [InlineData("INT")]
    public async Task Program_Signalled_EndsCleanlyAndRemovesItsSocket(string signal)
    {
        Requires.Kvm();
        var folder = Directory.CreateTempSubdirectory("fleet-vmm-");
        var control = Path.Combine(folder.FullName, "control.sock");
        using var process = Start("--vm", "vm-1", "--memory", "8M", "--control", control, "--handoff", Path.Combine(folder.FullName, "nobody.sock"));
        Assert.StartsWith("ready: vm vm-1", await process.StandardOutput.ReadLineAsync(Cancelled), StringComparison.Ordinal);
        await using (var client = await TinyVmmClient.ConnectAsync(control, Cancelled))
        {
            Assert.Equal(process.Id, (await client.StatusAsync(Cancelled)).Pid);
            Assert.Equal(CommandAnswer.Done, (await client.StoreAsync(0x10_0000, 1, Cancelled)).Outcome);
        }

        using var kill = Process.Start("/bin/kill", [$"-{signal}", $"{process.Id}"]);
        await process.WaitForExitAsync(Cancelled).WaitAsync(Deadline.Patience, Cancelled);

        Assert.Equal(0, process.ExitCode);
        Assert.False(File.Exists(control));
        folder.Delete(recursive: true);
    }

    // A socket that a killed VMM left behind must not keep the next one from starting.
    [Fact]
    public async Task Program_SocketOfADeadVmm_IsReplaced()
    {
        Requires.Kvm();
        var folder = Directory.CreateTempSubdirectory("fleet-vmm-");
        var control = Path.Combine(folder.FullName, "control.sock");
        for (var i = 0; i < 2; i++)
        {
            using var process = Start("--vm", "vm-1", "--memory", "8M", "--control", control);
            Assert.StartsWith("ready:", await process.StandardOutput.ReadLineAsync(Cancelled), StringComparison.Ordinal);
            process.Kill();
            await process.WaitForExitAsync(Cancelled);
            Assert.True(File.Exists(control));
        }

        folder.Delete(recursive: true);
    }

    [Theory]
    [InlineData(0, "--control", "--help")]
    [InlineData(1, "--control", "--vm", "vm-1")]
    [InlineData(1, "--memory", "--vm", "vm-1", "--control", "c.sock", "--memory", "5G")]
    [InlineData(1, "--vm", "--vm", "../x", "--control", "c.sock")]
    [InlineData(1, "software", "--vm", "vm-1", "--control", "c.sock", "--vcpu", "qemu")]
    [InlineData(1, "--incoming", "--vm", "vm-1", "--control", "c.sock", "--incoming", "tcp:192.0.2.1:80")]
    [InlineData(1, "tinyvmm:", "--vm", "vm-1", "--control", "c.sock", "--vcpu", "software", "--memory", "2M", "--incoming", "unix:/nonexistent/s.sock")]
    [InlineData(1, "tinyvmm:", "--vm", "vm-1", "--control", "/nonexistent/c.sock", "--memory", "2M")]
    public async Task Program_Arguments_AreExplained(int exitCode, string said, params string[] arguments)
    {
        using var process = Start(arguments);
        var output = process.StandardOutput.ReadToEndAsync(Cancelled);
        var errors = await process.StandardError.ReadToEndAsync(Cancelled);
        await process.WaitForExitAsync(Cancelled);

        Assert.Equal(exitCode, process.ExitCode);
        Assert.Contains(said, await output + errors, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", errors, StringComparison.Ordinal);
    }

    // Through env: a shell's background job ignores SIGINT, and a child would inherit that.
    private static Process Start(params string[] arguments) =>
        Process.Start(new ProcessStartInfo("env", ["--default-signal=INT", "dotnet", Path.Combine(AppContext.BaseDirectory, "Fleet.TinyVmm.dll"), .. arguments])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
}
