using System.Net;
using System.Net.Sockets;
using Fleet.Contracts.Hosts;
using Fleet.TinyVmm.Control;

namespace Fleet.Demo.Running;

/// <summary>A fleet on this machine, in a folder of its own: one control plane, agents and VMMs, each a process.</summary>
public sealed class LocalFleet : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);
    private readonly Dictionary<string, ChildProcess> _agents = [];
    private readonly List<ChildProcess> _vmms = [];
    private readonly IReadOnlyList<string> _apiArguments;
    private int _started;

    private LocalFleet(string root, Uri address, IReadOnlyList<string> apiArguments) => (Root, Address, _apiArguments) = (root, address, apiArguments);

    public string Root { get; }

    public Uri Address { get; }

    public ChildProcess? Api { get; private set; }

    /// <summary>Of agents that are started from now on.</summary>
    public string AgentProgram { get; set; } = Programs.HostAgent;

    /// <summary>With the administrator's token.</summary>
    public FleetClient Client { get; private set; } = null!;

    public string AdminToken { get; private set; } = string.Empty;

    public string DataFolder => Path.Combine(Root, "api");

    /// <param name="apiArguments">Settings of the control plane other than where it listens and stores.</param>
    public static async Task<LocalFleet> StartAsync(CancellationToken cancellationToken, params IReadOnlyList<string> apiArguments)
    {
        var root = Directory.CreateTempSubdirectory("fleet-").FullName;
        var fleet = new LocalFleet(root, new Uri($"http://127.0.0.1:{FreePort()}"), apiArguments);
        try
        {
            await fleet.StartApiAsync(cancellationToken);
            return fleet;
        }
        catch
        {
            await fleet.DisposeAsync();
            throw;
        }
    }

    /// <summary>Starts the control plane, or starts it again on the same data.</summary>
    public async Task StartApiAsync(CancellationToken cancellationToken)
    {
        Api = ChildProcess.Start(Programs.Api, Path.Combine(Root, "api.log"),
            [$"--Fleet:DataFolder={DataFolder}", "--urls", Address.ToString().TrimEnd('/'), .. _apiArguments]);
        using var anonymous = new FleetClient(Address, null);
        await UntilAsync(() => anonymous.IsReadyAsync(cancellationToken), "the control plane to be ready", Api, cancellationToken);
        AdminToken = (await File.ReadAllTextAsync(Path.Combine(DataFolder, "admin.token"), cancellationToken)).Trim();
        Client?.Dispose();
        Client = new FleetClient(Address, AdminToken);
    }

    /// <summary>Runs the control plane's program as a tool on its data folder: <c>backup</c> or <c>restore</c>.</summary>
    /// <returns>The exit code.</returns>
    public async Task<int> RunVerbAsync(string verb, string file, CancellationToken cancellationToken)
    {
        await using var process = ChildProcess.Start(Programs.Api, Path.Combine(Root, $"{verb}.log"), [verb, file, $"--Fleet:DataFolder={DataFolder}"]);
        return await process.EndedAsync(cancellationToken);
    }

    /// <summary>Enrols the host where that was not done, and starts its agent.</summary>
    /// <param name="policy">Null for the agent's default.</param>
    public async Task<ChildProcess> StartAgentAsync(string host, CancellationToken cancellationToken, string? policy = null)
    {
        var before = await IncarnationAsync(host, cancellationToken);
        var agent = await LaunchAgentAsync(host, cancellationToken, policy);
        await UntilAsync(
            async () => await Client.GetHostAsync(host, cancellationToken) is { State: HostStates.Online, Incarnation: { } now } && now != before,
            $"agent {host} to claim its host", agent, cancellationToken);
        return agent;
    }

    /// <summary>As <see cref="StartAgentAsync"/>, without waiting until the agent is there: it may be killed at any moment from its first instruction on.</summary>
    /// <param name="settings">Others of the agent's settings.</param>
    /// <param name="environment">Variables for the process.</param>
    public async Task<ChildProcess> LaunchAgentAsync(
        string host, CancellationToken cancellationToken, string? policy = null, IReadOnlyList<string>? settings = null, IReadOnlyDictionary<string, string>? environment = null)
    {
        var state = Directory.CreateDirectory(Path.Combine(Root, host)).FullName;
        var arguments = new List<string> { $"--Agent:Host={host}", $"--Agent:ControlPlane={Address}", $"--Agent:StateFolder={state}" };
        if (!File.Exists(Path.Combine(state, "credential")))
        {
            var token = Path.Combine(Root, $"{host}.join-token");
            await File.WriteAllTextAsync(token, (await Client.CreateJoinTokenAsync(host, cancellationToken)).Token, cancellationToken);
            arguments.Add($"--Agent:JoinTokenFile={token}");
        }

        if (policy is not null)
        {
            arguments.Add($"--Agent:Policy={policy}");
        }

        var agent = ChildProcess.Start(AgentProgram, Path.Combine(Root, $"{host}.log"), [.. arguments, .. settings ?? []], environment);
        _agents[host] = agent;
        return agent;
    }

    /// <summary>Starts a VMM and waits for its control socket.</summary>
    /// <param name="host">Host whose agent it attaches to; null for a VMM without any.</param>
    /// <param name="options">How it takes part in a migration; null for a VMM without a barrier.</param>
    public async Task<(ChildProcess Process, TinyVmmClient Client)> StartVmmAsync(
        string vm, string memory, string? host, CancellationToken cancellationToken, VmmStart? options = null)
    {
        // Several VMMs of one VM live at a time while it migrates.
        var name = $"{vm}-{++_started}";
        var control = Path.Combine(Root, $"{name}.control");
        var arguments = new List<string> { "--vm", vm, "--memory", memory, "--control", control };
        if (host is not null)
        {
            arguments.AddRange(["--handoff", Path.Combine(Root, host, "vmm", $"{vm}.sock")]);
        }

        arguments.AddRange((options ?? new VmmStart()).Arguments());
        var process = ChildProcess.Start(Programs.TinyVmm, Path.Combine(Root, $"{name}.log"), arguments);
        _vmms.Add(process);
        TinyVmmClient? client = null;
        await UntilAsync(
            async () =>
            {
                try
                {
                    client = await TinyVmmClient.ConnectAsync(control, cancellationToken);
                    return true;
                }
                catch (SocketException)
                {
                    return false;
                }
            },
            $"the VMM of {vm} to listen", process, cancellationToken);
        return (process, client!);
    }

    /// <summary>Waits for something that other processes bring about.</summary>
    /// <param name="process">Whose end makes waiting pointless; null for none.</param>
    /// <exception cref="TimeoutException">It did not come about; the message says what, with the end of the process's log.</exception>
    public static async Task UntilAsync(Func<Task<bool>> condition, string what, ChildProcess? process, CancellationToken cancellationToken)
    {
        using var timeout = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        timeout.CancelAfter(Patience);
        while (!await condition())
        {
            if (process is { HasExited: true } || timeout.IsCancellationRequested)
            {
                cancellationToken.ThrowIfCancellationRequested();
                throw new TimeoutException($"waited for {what}{(process is null ? string.Empty : $"; the process's last words:\n{process.LogTail()}")}");
            }

            await Task.Delay(20, cancellationToken); // allowed: polling another process, with a deadline
        }
    }

    public async ValueTask DisposeAsync()
    {
        Client?.Dispose();
        foreach (var process in _vmms.Concat(_agents.Values).Append(Api).OfType<ChildProcess>())
        {
            await process.DisposeAsync();
        }

        Directory.Delete(Root, recursive: true);
    }

    private async Task<long?> IncarnationAsync(string host, CancellationToken cancellationToken)
    {
        try
        {
            return (await Client.GetHostAsync(host, cancellationToken)).Incarnation;
        }
        catch (HttpRequestException)
        {
            // Not known yet.
            return null;
        }
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
