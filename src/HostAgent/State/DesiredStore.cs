using System.Text.Json;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Linux;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.State;

/// <summary>
/// The desired state on disk, one file for each VM, so that an agent that starts while the control plane is away enforces the
/// last known set (I6). Written before anything is armed on it.
/// </summary>
public sealed partial class DesiredStore(StateFolder folder, ILogger<DesiredStore> logger)
{
    public IReadOnlyList<DesiredVm> Load()
    {
        var loaded = new List<DesiredVm>();
        foreach (var path in Directory.EnumerateFiles(folder.Desired, "*.json"))
        {
            try
            {
                loaded.Add(StateFile.Read(path, FleetJson.Default.DesiredVm, vm => vm is { Vm: not null, Memory: not null, Attach: not null, Pages: not null, Digest: not null }));
            }
            catch (InvalidDataException exception)
            {
                // Nothing is disarmed for want of it, and the control plane tells the set again.
                LogDamaged(exception.Message);
            }
        }

        return loaded;
    }

    public void Save(DesiredVm vm) =>
        DurableFile.Write(PathOf(vm.Vm), JsonSerializer.SerializeToUtf8Bytes(vm, FleetJson.Default.DesiredVm));

    public void Remove(string vm) => DurableFile.Delete(PathOf(vm));

    private string PathOf(string vm) => Path.Combine(folder.Desired, $"{vm}.json");

    [LoggerMessage(2241, LogLevel.Error, "A VM's last known pages cannot be read until the control plane tells them again: {Problem}")]
    private partial void LogDamaged(string problem);
}
