using System.Net.Sockets;
using System.Text;
using Fleet.Demo.Running;
using Fleet.Tests.Shared;

namespace Fleet.EndToEnd.Tests;

/// <summary>The agent as a service: its unit file, with what that file leaves it, and what it tells the service manager.</summary>
public sealed class ServiceTests
{
    // systemd-analyze's exposure, in tenths: 96 without any sandboxing. What is left is root, the capabilities and the network that it needs.
    private const int MostExposure = 35;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    private static string UnitPath => Path.Combine(AppContext.BaseDirectory, "fleet-agent.service");

    [Fact]
    public async Task Unit_IsValidAndItsExposureStaysBelowTheThreshold()
    {
        Requires.File("/usr/bin/systemd-analyze", "Debian package systemd");
        var folder = Directory.CreateTempSubdirectory("fl-");
        try
        {
            // Its program is not installed here; verify asks for one that is.
            var unit = Path.Combine(folder.FullName, "fleet-agent.service");
            await File.WriteAllTextAsync(
                unit, (await File.ReadAllTextAsync(UnitPath, Cancelled)).Replace("ExecStart=/usr/lib/fleet/Fleet.HostAgent", "ExecStart=/bin/true", StringComparison.Ordinal), Cancelled);

            Assert.Empty(await CHelper.RunAsync("systemd-analyze", "verify", "--man=no", unit));
            await CHelper.RunAsync("systemd-analyze", "security", "--offline=true", "--no-pager", $"--threshold={MostExposure}", unit);
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    [Fact]
    public void Unit_SaysWhatTheAgentReliesOn()
    {
        var settings = Settings();

        Assert.Equal(("notify", "60", "always", "3 78"), (settings["Type"], settings["WatchdogSec"], settings["Restart"], settings["RestartPreventExitStatus"]));
        Assert.Equal("0", settings["StartLimitIntervalSec"]);
    }

    /// <summary>The unit's capabilities, and no others: the agent arms, dies, and takes over with them.</summary>
    [Fact]
    [Trait("Invariant", "I6")]
    public async Task Agent_WithTheUnitsCapabilitiesOnly_ArmsAndTakesOver()
    {
        Requires.File("/usr/bin/setpriv", "Debian package util-linux");
        await using var one = await OneVm.StartAsync();
        await one.Agent.KillAsync();
        var capabilities = Settings()["CapabilityBoundingSet"].Split(' ').Select(name => "+" + name["CAP_".Length..].ToLowerInvariant());
        List<string> setpriv = ["--bounding-set", $"-all,{string.Join(',', capabilities)}", "--inh-caps", "-all", "--no-new-privs", "--", Programs.HostAgent];

        for (var life = 0; life < 2; life++)
        {
            await using var agent = ChildProcess.Start(
                "/usr/bin/setpriv", Path.Combine(one.Fleet.Root, "confined.log"),
                [.. setpriv, $"--Agent:Host={OneVm.Host}", $"--Agent:ControlPlane={one.Fleet.Address}", $"--Agent:StateFolder={Path.Combine(one.Fleet.Root, OneVm.Host)}"]);
            await one.PoisonAsync(5000 + life, 6000 + life);
            await one.ArmedAsync();
            await one.AttachedAsync(agent);
            await ProcessResources.BorrowsAsync(agent, "1 userfaultfds, 1 memfds, 1 pidfds", Cancelled);
            await one.AssertMachineCheckAsync(5000 + life);
            await agent.KillAsync();
        }
    }

    [Fact]
    public async Task Agent_WithANotifySocket_TellsItsLife()
    {
        await using var one = await OneVm.StartAsync();
        await one.PoisonAsync(5000);
        await one.ArmedAsync();
        await one.Agent.KillAsync();
        var path = Path.Combine(one.Fleet.Root, "notify");
        using var manager = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        manager.Bind(new UnixDomainSocketEndPoint(path));

        await using var agent = await one.Fleet.LaunchAgentAsync(
            OneVm.Host, Cancelled, environment: new Dictionary<string, string> { ["NOTIFY_SOCKET"] = path, ["WATCHDOG_USEC"] = "800000" });

        var first = await ReceiveAsync(manager);
        Assert.Equal("READY=1", first[0]);
        Assert.StartsWith("STATUS=1 VMs: 1 armed, 0 failed;", first[1], StringComparison.Ordinal);
        while (!(await ReceiveAsync(manager)).Contains("WATCHDOG=1"))
        {
        }

        Assert.Equal(0, await agent.TerminateAsync());
        while (!(await ReceiveAsync(manager)).Contains("STOPPING=1"))
        {
        }
    }

    /// <summary>Two processes, and one disk of a newer version: neither is started again by the service manager.</summary>
    [Fact]
    public async Task Agent_OnAStateFolderOfANewerVersion_EndsWith78AndSaysWhy()
    {
        await using var fleet = await LocalFleet.StartAsync(Cancelled);
        var state = Directory.CreateDirectory(Path.Combine(fleet.Root, "newer")).FullName;
        await File.WriteAllTextAsync(Path.Combine(state, "format"), "99 9.9.9\n", Cancelled);

        await using var agent = ChildProcess.Start(
            Programs.HostAgent, Path.Combine(fleet.Root, "newer.log"), ["--Agent:Host=host-a", $"--Agent:ControlPlane={fleet.Address}", $"--Agent:StateFolder={state}"]);

        Assert.Equal(78, await agent.EndedAsync(Cancelled));
        Assert.Contains("newer agent", agent.LogTail(), StringComparison.Ordinal);
    }

    private static Dictionary<string, string> Settings() => File.ReadLines(UnitPath)
        .Where(line => line.Contains('=', StringComparison.Ordinal) && line[0] != '#')
        .Select(line => line.Split('=', 2)).GroupBy(parts => parts[0]).ToDictionary(group => group.Key, group => group.First()[1]);

    private static async Task<string[]> ReceiveAsync(Socket manager)
    {
        var buffer = new byte[4096];
        var length = await manager.ReceiveAsync(buffer, Cancelled).AsTask().WaitAsync(TimeSpan.FromSeconds(60));
        return Encoding.UTF8.GetString(buffer, 0, length).Split('\n');
    }
}
