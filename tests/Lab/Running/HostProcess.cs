using System.Globalization;
using Fleet.Lab.Tests.Emulation;

namespace Fleet.Lab.Tests.Running;

/// <summary>A program that runs on a host, known by its process id there; its output is in a file there.</summary>
internal sealed class HostProcess
{
    private HostProcess(LabHost host, string name, int pid, string logPath) => (Host, Name, Pid, LogPath) = (host, name, pid, logPath);

    public LabHost Host { get; }

    public string Name { get; }

    public int Pid { get; }

    public string LogPath { get; }

    public static async Task<HostProcess> StartAsync(LabHost host, string name, string command, CancellationToken cancellationToken)
    {
        var log = $"/run/{name}.log";
        var pid = await host.Shell.RunAsync($"{command} >>{log} 2>&1 </dev/null & echo $!", cancellationToken);
        return new HostProcess(host, name, int.Parse(pid, CultureInfo.InvariantCulture), log);
    }

    /// <summary>kill -9, or another signal, and waits until it is gone.</summary>
    public async Task KillAsync(CancellationToken cancellationToken, string signal = "9")
    {
        await Host.Shell.TryAsync($"kill -{signal} {Pid}", cancellationToken);
        await Waiting.UntilAsync(async () => !await IsAliveAsync(cancellationToken), $"{Name} on {Host.Name.Text} to end", cancellationToken);
    }

    public async Task<bool> IsAliveAsync(CancellationToken cancellationToken) =>
        (await Host.Shell.TryAsync($"grep -q '^State:[^Z]*$' /proc/{Pid}/status", cancellationToken)).ExitCode == 0;

    public Task<string> TailAsync(CancellationToken cancellationToken) => Host.TailAsync(LogPath, cancellationToken);
}
