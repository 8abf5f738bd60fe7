using System.Diagnostics;
using System.Globalization;
using Fleet.Contracts.Agents;
using Fleet.Linux.Processes;
using Fleet.TinyVmm.Control;

namespace Fleet.TinyVmm.Tests;

/// <summary>The program as a process of its own, with its control socket in a folder of its own.</summary>
internal sealed class VmmProcess : IAsyncDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("fleet-vmm-");
    private readonly Process _process;

    private VmmProcess(string[] arguments) =>
        _process = Process.Start(new ProcessStartInfo(
            "dotnet",
            [Path.Combine(AppContext.BaseDirectory, "Fleet.TinyVmm.dll"), "--vm", "vm-1", "--control", Path.Combine(_folder.FullName, "control.sock"), "--handoff", HandoffPath, .. arguments])
        {
            RedirectStandardOutput = true,
        })!;

    public string HandoffPath => Path.Combine(_folder.FullName, "vm-1.sock");

    public int Pid => _process.Id;

    public TinyVmmClient Client { get; private set; } = null!;

    /// <summary>Where it waits for a stream.</summary>
    public string Incoming { get; private set; } = string.Empty;

    public string Instance
    {
        get
        {
            var identity = ProcessIdentity.Of(Pid)!;
            return VmmInstanceText.Of(identity.BootId, identity.Pid, identity.StartTime);
        }
    }

    public static async Task<VmmProcess> StartAsync(params string[] arguments)
    {
        var vmm = new VmmProcess(arguments);
        using var patience = new CancellationTokenSource(Deadline.Patience);
        var ready = await vmm._process.StandardOutput.ReadLineAsync(patience.Token);
        Assert.StartsWith("ready:", ready, StringComparison.Ordinal);
        vmm.Incoming = ready!.Split(", incoming ", StringSplitOptions.None) is [_, var address] ? address : string.Empty;
        vmm.Client = await TinyVmmClient.ConnectAsync(Path.Combine(vmm._folder.FullName, "control.sock"), patience.Token);
        return vmm;
    }

    public async Task KillAsync()
    {
        _process.Kill();
        await _process.WaitForExitAsync();
    }

    public override string ToString() => Pid.ToString(CultureInfo.InvariantCulture);

    public async ValueTask DisposeAsync()
    {
        await Client.DisposeAsync();
        await KillAsync();
        _process.Dispose();
        _folder.Delete(recursive: true);
    }
}
