using System.Net;
using System.Net.Sockets;
using Fleet.Demo.Running;
using Fleet.Lab.Tests.Running;

namespace Fleet.Lab.Tests.Emulation;

/// <summary>One emulated host: a process of the emulator, and what runs in it.</summary>
internal sealed class LabHost : IAsyncDisposable
{
    /// <summary>Where the outer machine's loopback is, seen from a host.</summary>
    public const string OuterMachine = "10.0.3.2";

    // Where a VMM of this host waits for a stream; the relays lead there from the other host.
    public const string IncomingStream = "tcp:127.0.0.1:9000";
    public const string OutgoingStream = "tcp:127.0.0.1:9002";
    private readonly LabPaths _paths;
    private readonly LabHostName _peer;
    private ChildProcess? _emulator;

    public LabHost(LabPaths paths, LabHostName name, LabHostName peer)
    {
        (_paths, Name, _peer) = (paths, name, peer);
        var port = FreePort();
        Port = port;
        Shell = new HostShell(name.Text, port);
    }

    public LabHostName Name { get; }

    public HostShell Shell { get; }

    private int Port { get; }

    private string Qmp => Path.Combine(_paths.Work, $"{Name.Text}.qmp");

    private string ConsolePath => Path.Combine(_paths.Work, $"{Name.Text}.console");

    /// <summary>Switches the host on, and returns once it carries out commands.</summary>
    public async Task BootAsync(CancellationToken cancellationToken)
    {
        _emulator = ChildProcess.Start(
            Path.Combine(_paths.Lab, "boot"), Path.Combine(_paths.Work, $"{Name.Text}.emulator.log"),
            [_paths.Image, _paths.Work, Name.Text, $"{Port}", _peer.Text]);
        await Waiting.UntilAsync(
            async () =>
            {
                if (_emulator.HasExited)
                {
                    throw new InvalidOperationException($"{Name.Text} did not start: {_emulator.LogTail()}");
                }

                try
                {
                    return (await Shell.TryAsync("true", cancellationToken, TimeSpan.FromSeconds(5))).ExitCode == 0;
                }
                catch (Exception exception) when (exception is IOException or TimeoutException)
                {
                    // The emulator takes a connection before its host has a network, and may then never hear of it again.
                    return false;
                }
            },
            $"{Name.Text} to boot; its console is {ConsolePath}", cancellationToken);
        await Shell.RunAsync(
            $"labd relay 9001 127.0.0.1 9000 >/dev/null 2>&1 & labd relay 9002 {_peer.Address} 9001 >/dev/null 2>&1 &", cancellationToken);
    }

    /// <summary>The power goes: nothing in the host gets to do anything. Its disk stays.</summary>
    public async Task PowerOffAsync()
    {
        await _emulator!.KillAsync();
        await _emulator.DisposeAsync();
        _emulator = null;
    }

    /// <summary>The cable to the control plane; commands from the tests have one of their own.</summary>
    public Task SetControlPlaneLinkAsync(bool up, CancellationToken cancellationToken) => HostMonitor.SetLinkAsync(Qmp, "fleet-nic", up, cancellationToken);

    /// <summary>The end of a file on the host, for messages.</summary>
    public async Task<string> TailAsync(string path, CancellationToken cancellationToken) =>
        _emulator is null ? "(the host is off)" : (await Shell.TryAsync($"tail -n 25 {path}", cancellationToken)).Output;

    public async ValueTask DisposeAsync()
    {
        if (_emulator is not null)
        {
            await PowerOffAsync();
        }
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}

/// <summary>Its id in the fleet, and its address on the network between the hosts.</summary>
internal sealed record LabHostName(int Number)
{
    public string Text => $"host-{Number}";

    public string Address => $"192.168.77.{Number}";
}
