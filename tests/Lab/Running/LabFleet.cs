using Fleet.Contracts.Hosts;
using Fleet.Demo.Running;
using Fleet.Lab.Tests.Emulation;
using Fleet.TinyVmm.Control;

namespace Fleet.Lab.Tests.Running;

/// <summary>A control plane on the outer machine, and agents and VMMs on the hosts; each test has one of its own.</summary>
internal sealed class LabFleet : IAsyncDisposable
{
    private readonly string _id = Guid.NewGuid().ToString("N")[..8];
    private readonly string _policy;
    private readonly List<HostProcess> _processes = [];
    private int _vmms;

    private LabFleet(LabWorld world, LocalFleet controlPlane, string policy) => (World, ControlPlane, _policy) = (world, controlPlane, policy);

    public LabWorld World { get; }

    /// <summary>Of it only the control plane's process and its client.</summary>
    public LocalFleet ControlPlane { get; }

    public FleetClient Client => ControlPlane.Client;

    public Dictionary<LabHost, HostProcess> Agents { get; } = [];

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    /// <param name="apiArguments">Further settings of the control plane.</param>
    public static async Task<LabFleet> StartAsync(LabWorld world, string policy = "marker", params IReadOnlyList<string> apiArguments)
    {
        var fleet = new LabFleet(world, await LocalFleet.StartAsync(Cancelled, apiArguments), policy);
        try
        {
            await Task.WhenAll(fleet.StartAgentAsync(world.Host1), fleet.StartAgentAsync(world.Host2));
            return fleet;
        }
        catch
        {
            await fleet.DisposeAsync();
            throw;
        }
    }

    public string StateFolder => $"/var/lib/fleet-agent/{_id}";

    /// <summary>Where the control plane may name sockets of QEMU, and where QEMU's logs are.</summary>
    public string QemuFolder => $"/run/{_id}";

    /// <summary>Enrols the host where that was not done, and starts its agent.</summary>
    public async Task StartAgentAsync(LabHost host)
    {
        var id = host.Name.Text;
        string? join = null;
        if ((await host.Shell.TryAsync($"test -e {StateFolder}/credential", Cancelled)).ExitCode != 0)
        {
            join = $"--Agent:JoinTokenFile=/run/{_id}.token ";
            var token = (await Client.CreateJoinTokenAsync(id, Cancelled)).Token;
            await host.Shell.RunAsync($"mkdir -p -m 0700 {StateFolder} && umask 077 && echo {token} > /run/{_id}.token", Cancelled);
        }

        var before = await IncarnationAsync(id);
        Agents[host] = await HostProcess.StartAsync(
            host, $"{_id}.agent",
            $"fleet-agent --Agent:Host={id} --Agent:ControlPlane=http://{LabHost.OuterMachine}:{ControlPlane.Address.Port} --Agent:AllowPlainHttp=true "
            + $"--Agent:StateFolder={StateFolder} {join}--Agent:Policy={_policy} "
            + $"--Agent:AllowedPaths={QemuFolder} --Agent:QemuLogFolder={QemuFolder}", Cancelled);
        _processes.Add(Agents[host]);
        await Waiting.UntilAsync(
            async () => await Client.GetHostAsync(id, Cancelled) is { State: HostStates.Online, Incarnation: { } now } && now != before,
            $"the agent of {id}", Cancelled, () => Agents[host].TailAsync(Cancelled));
    }

    /// <summary>Starts a VMM of a VM, and connects to its control socket.</summary>
    /// <param name="attached">With the host's agent; otherwise on its own.</param>
    public async Task<LabVmm> StartVmmAsync(LabHost host, string vm, string memory, VmmStart start, bool attached = true)
    {
        var name = $"{_id}.{vm}-{++_vmms}";
        var control = $"/run/{name}.control";
        var handoff = attached ? $"--handoff {StateFolder}/vmm/{vm}.sock " : null;
        var process = await HostProcess.StartAsync(
            host, name, $"tinyvmm --vm {vm} --memory {memory} --control {control} {handoff}{string.Join(' ', start.Arguments())}", Cancelled);
        _processes.Add(process);
        TinyVmmClient? client = null;
        await Waiting.UntilAsync(
            async () =>
            {
                try
                {
                    client = TinyVmmClient.Over(await host.Shell.ConnectAsync(control, Cancelled));
                    return true;
                }
                catch (IOException)
                {
                    return false;
                }
            },
            $"the VMM {name} to listen", Cancelled, () => process.TailAsync(Cancelled));
        return new LabVmm(process, client!);
    }

    /// <summary>Starts QEMU, with its standard error where the agent reads it.</summary>
    public async Task<HostProcess> StartQemuAsync(LabHost host, string vm, string command)
    {
        var process = await HostProcess.StartAsync(host, $"{_id}/{vm}", command, Cancelled);
        _processes.Add(process);
        return process;
    }

    /// <summary>What ran on the host has ended with its power.</summary>
    public async Task PowerOffAsync(LabHost host)
    {
        await host.PowerOffAsync();
        _processes.RemoveAll(process => process.Host == host);
    }

    public async ValueTask DisposeAsync()
    {
        // Ending what runs on the hosts must not depend on the test's own deadline.
        foreach (var host in _processes.GroupBy(process => process.Host))
        {
            try
            {
                await host.Key.Shell.TryAsync($"kill -9 {string.Join(' ', host.Select(process => process.Pid))}; rm -rf {StateFolder}", CancellationToken.None);
            }
            catch (IOException)
            {
                // The host is off.
            }
        }

        await ControlPlane.DisposeAsync();
    }

    private async Task<long?> IncarnationAsync(string host)
    {
        try
        {
            return (await Client.GetHostAsync(host, Cancelled)).Incarnation;
        }
        catch (HttpRequestException)
        {
            // Not known yet.
            return null;
        }
    }
}

/// <summary>A VMM on a host, and the client of its control socket.</summary>
internal sealed record LabVmm(HostProcess Process, TinyVmmClient Guest);
