using System.Collections.Concurrent;

namespace Fleet.HostAgent.Reconcile;

/// <summary>Every VM that the agent knows of, desired or still attached.</summary>
public sealed class VmTable
{
    private readonly TaskCompletionSource _loaded = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly ConcurrentDictionary<string, VmEntry> _entries = new(StringComparer.Ordinal);

    public IEnumerable<VmEntry> All => _entries.Values;

    public VmEntry GetOrAdd(string vm) => _entries.GetOrAdd(vm, static id => new VmEntry(id));

    /// <summary>Completes when all that earlier lives of the agent left on disk is in the table, their VMMs taken over.</summary>
    public Task WhenLoadedAsync() => _loaded.Task;

    public void Loaded() => _loaded.TrySetResult();

    public VmEntry? Find(string vm) => _entries.GetValueOrDefault(vm);
}
