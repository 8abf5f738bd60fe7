using System.Globalization;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Fleet.Lab.Tests.Emulation;
using Fleet.Linux.Memory;

namespace Fleet.Lab.Tests.Running;

/// <summary>Stock QEMU on a host, with a Linux guest under KVM whose only program is Guest/init.c.</summary>
internal sealed class LabQemu
{
    public const long Bytes = 256 << 20;

    // A guest in an emulated host boots for half a minute; more when the machine is busy.
    private static readonly TimeSpan BootPatience = TimeSpan.FromMinutes(4);

    private readonly LabFleet _fleet;

    private LabQemu(LabFleet fleet, HostProcess process) => (_fleet, Process) = (fleet, process);

    public HostProcess Process { get; }

    public string AgentSocket => AgentSocketOf(_fleet);

    private HostShell Shell => Process.Host.Shell;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    /// <summary>Starts it, and returns when the guest takes commands.</summary>
    /// <param name="user">As a user without rights, as management software does.</param>
    public static async Task<LabQemu> StartAsync(LabFleet fleet, LabHost host, string vm, bool user = false)
    {
        var folder = fleet.QemuFolder;
        await host.Shell.RunAsync($"mkdir -p {folder} && chown vmm {folder} && chmod 0666 /dev/kvm", Cancelled);
        // What goes out by the console and the agent's monitor is also written to files, so that a test sees what was said to others.
        var command =
            "qemu-system-x86_64 -L /usr/share/qemu -accel kvm -cpu EPYC,+succor,+overflow-recov -M microvm,memory-backend=mem -m 256M -smp 1 "
            + "-object memory-backend-memfd,id=mem,size=256M,share=on -nodefaults -no-user-config -display none "
            + $"-chardev socket,id=agent,path={AgentSocketOf(fleet)},server=on,wait=off,logfile={folder}/events -mon chardev=agent,mode=control "
            + $"-chardev socket,id=console,path={folder}/console,server=on,wait=off,logfile={folder}/console.log -serial chardev:console "
            + $"-qmp unix:{folder}/test.qmp,server=on,wait=off -kernel /guest/vmlinuz -initrd /guest/initramfs "
            + "-append \"console=ttyS0 panic=-1 quiet loglevel=4 tsc=reliable mitigations=off nokaslr reboot=t\"";
        var process = await fleet.StartQemuAsync(host, vm, user ? $"su -s /bin/sh vmm -c 'exec {command}'" : command);
        var qemu = new LabQemu(fleet, process);
        await qemu.BootedAsync(times: 1);
        return qemu;
    }

    /// <summary>Until the guest has booted so many times.</summary>
    public Task BootedAsync(int times) => Waiting.UntilAsync(
        async () => (await ConsoleAsync()).Count(line => line == "guest: ready") >= times, $"the guest to boot ({times})", Cancelled,
        async () => $"{await Process.TailAsync(Cancelled)}\n{string.Join('\n', await ConsoleAsync())}", BootPatience);

    /// <summary>What the guest wrote to its console, its kernel's messages included; without a line that is not ended yet.</summary>
    public async Task<string[]> ConsoleAsync() =>
        (await Shell.TryAsync($"tr -d '\\r' < {_fleet.QemuFolder}/console.log; echo .", Cancelled)).Output.Split('\n', StringSplitOptions.RemoveEmptyEntries)[..^1];

    /// <summary>Gives the guest a command, and waits for a line of answer.</summary>
    /// <returns>All lines since the command.</returns>
    public async Task<string[]> AskAsync(string command, string answer)
    {
        var before = (await ConsoleAsync()).Length;
        var lines = Array.Empty<string>();
        using var socket = await Shell.ConnectAsync($"{_fleet.QemuFolder}/console", Cancelled);
        await socket.SendAsync(Encoding.ASCII.GetBytes(command + "\n"), Cancelled);
        await Waiting.UntilAsync(
            async () => (lines = (await ConsoleAsync())[before..]).Any(line => line.StartsWith(answer, StringComparison.Ordinal)),
            $"the guest's answer to '{command}'", Cancelled, async () => string.Join('\n', await ConsoleAsync()));
        return lines;
    }

    /// <summary>Starts a program in the guest that owns a page.</summary>
    /// <returns>The page's guest physical address, as the program read it from its own page table.</returns>
    public async Task<ulong> OwnAsync(string program, string kind)
    {
        var start = $"guest: {program} owns 0x";
        var line = (await AskAsync($"own {program} {kind}", start)).Single(line => line.StartsWith(start, StringComparison.Ordinal));
        var address = ulong.Parse(line.AsSpan(start.Length), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
        // The kernel's loader works below, and the loader of the initramfs above: neither could handle a machine check after a reset.
        Assert.InRange(address, 80UL << 20, 224UL << 20);
        return address;
    }

    /// <summary>Events of one kind that QEMU sent to the agent.</summary>
    public async Task<JsonElement[]> EventsAsync(string name)
    {
        var text = (await Shell.TryAsync($"grep '\"event\": \"{name}\"' {_fleet.QemuFolder}/events", Cancelled)).Output;
        return [.. text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => JsonDocument.Parse(line).RootElement)];
    }

    /// <summary>Lines of QEMU's standard error about memory failures.</summary>
    public async Task<string[]> FailureLinesAsync() =>
        (await Shell.TryAsync($"grep 'Guest MCE Memory Error' {Process.LogPath}", Cancelled)).Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);

    /// <summary>The entry of a guest's page in QEMU's page table.</summary>
    public async Task<PageMapEntry> PageTableEntryAsync(ulong guestPhysicalAddress)
    {
        // The mapping may be in several pieces: those of the poisoned pages are registered.
        var start = await Shell.RunAsync($"grep 'memfd:memory-backend-memfd' /proc/{Process.Pid}/maps | head -n 1 | cut -d- -f1", Cancelled);
        return await HostKernel.PageTableEntryAsync(Process, ulong.Parse(start, NumberStyles.HexNumber, CultureInfo.InvariantCulture) + guestPhysicalAddress);
    }

    /// <summary>A command of the human monitor, on a connection of its own.</summary>
    /// <returns>What it answers; null when QEMU ended instead.</returns>
    public async Task<string?> MonitorAsync(string command)
    {
        await using var stream = new NetworkStream(await Shell.ConnectAsync($"{_fleet.QemuFolder}/test.qmp", Cancelled), ownsSocket: true);
        using var reader = new StreamReader(stream);
        await using var writer = new StreamWriter(stream) { AutoFlush = true };
        await writer.WriteLineAsync("""{"execute":"qmp_capabilities"}""".AsMemory(), Cancelled);
        await writer.WriteLineAsync($$"""{"execute":"human-monitor-command","id":"h","arguments":{"command-line":"{{command}}"} }""".AsMemory(), Cancelled);
        while (await reader.ReadLineAsync(Cancelled) is { } line)
        {
            using var answer = JsonDocument.Parse(line);
            if (answer.RootElement.TryGetProperty("id", out _))
            {
                return answer.RootElement.GetProperty("return").GetString()!.Trim();
            }
        }

        return null;
    }

    private static string AgentSocketOf(LabFleet fleet) => $"{fleet.QemuFolder}/agent.qmp";
}
