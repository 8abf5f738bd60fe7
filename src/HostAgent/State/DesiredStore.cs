using System.Text.Json;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Linux;

namespace Fleet.HostAgent.State;

/// <summary>
/// The desired state on disk, one file for each VM, so that an agent that starts while the control plane is away enforces the
/// last known set (I6). Written before anything is armed on it.
/// </summary>
public sealed class DesiredStore(StateFolder folder)
{
    public IReadOnlyList<DesiredVm> Load()
    {
        var loaded = new List<DesiredVm>();
        foreach (var path in Directory.EnumerateFiles(folder.Desired, "*.json"))
        {
            using var file = File.OpenRead(path);
            loaded.Add(JsonSerializer.Deserialize(file, FleetJson.Default.DesiredVm)
                ?? throw new InvalidDataException($"{path} is empty; it was written by another program"));
        }

        return loaded;
    }

    public void Save(DesiredVm vm) =>
        DurableFile.Write(PathOf(vm.Vm), JsonSerializer.SerializeToUtf8Bytes(vm, FleetJson.Default.DesiredVm));

    public void Remove(string vm) => DurableFile.Delete(PathOf(vm));

    private string PathOf(string vm) => Path.Combine(folder.Desired, $"{vm}.json");
}
