using System.Collections.Concurrent;

namespace Fleet.HostAgent.Reconcile;

/// <summary>Every VM that the agent knows of, desired or still attached.</summary>
public sealed class VmTable
{
    private readonly ConcurrentDictionary<string, VmEntry> _entries = new(StringComparer.Ordinal);

    public IEnumerable<VmEntry> All => _entries.Values;

    public VmEntry GetOrAdd(string vm) => _entries.GetOrAdd(vm, static id => new VmEntry(id));

    public VmEntry? Find(string vm) => _entries.GetValueOrDefault(vm);
}
