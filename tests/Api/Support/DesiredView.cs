using System.Text.Json;
using Fleet.Api.Agents.Push;
using Fleet.Contracts;
using Fleet.Contracts.Agents;

namespace Fleet.Api.Tests.Support;

/// <summary>Applies a desired-state stream as the contract tells an agent to, and complains where it does not fit.</summary>
public sealed class DesiredView
{
    private readonly Dictionary<string, DesiredVm> _vms = [];
    private Dictionary<string, DesiredVm>? _incoming;

    public IReadOnlyDictionary<string, DesiredVm> Vms => _vms;

    public long Revision { get; private set; }

    /// <summary>When the server said last to come back.</summary>
    public TimeSpan Retry { get; set; }

    public void Apply(string name, string json, long id) => Apply(new FeedItem(name, id, name switch
    {
        DesiredEvents.SnapshotBegin => JsonSerializer.Deserialize(json, FleetJson.Default.SnapshotBegin)!,
        DesiredEvents.SnapshotEnd => JsonSerializer.Deserialize(json, FleetJson.Default.SnapshotEnd)!,
        DesiredEvents.Vm => JsonSerializer.Deserialize(json, FleetJson.Default.DesiredVm)!,
        DesiredEvents.Delta => JsonSerializer.Deserialize(json, FleetJson.Default.DesiredDelta)!,
        DesiredEvents.VmRemoved => JsonSerializer.Deserialize(json, FleetJson.Default.DesiredVmRemoved)!,
        DesiredEvents.Unchanged => JsonSerializer.Deserialize(json, FleetJson.Default.Unchanged)!,
        DesiredEvents.Bookmark => JsonSerializer.Deserialize(json, FleetJson.Default.Bookmark)!,
        _ => throw new InvalidOperationException(name),
    }));

    public void Apply(FeedItem item)
    {
        Assert.True(item.Revision >= Revision, "Event ids went back.");
        Revision = item.Revision;
        switch (item.Data)
        {
            case SnapshotBegin:
                _incoming = [];
                break;
            case SnapshotEnd end:
                Assert.Equal(end.Digest, PoisonDigest.ComputeSnapshot(
                    _incoming!.Values.Select(vm => (vm.Vm, vm.Generation, vm.PlacementEpoch, vm.Digest))));
                _vms.Clear();
                foreach (var (id, vm) in _incoming!)
                {
                    _vms[id] = vm;
                }

                _incoming = null;
                break;
            case DesiredVm vm:
                Check(vm);
                (_incoming ?? _vms)[vm.Vm] = vm;
                break;
            case DesiredDelta delta:
                var before = _vms[delta.Vm];
                Assert.Equal(before.Generation, delta.From);
                Assert.True(delta.Generation > delta.From);
                var after = before with
                {
                    Generation = delta.Generation,
                    Digest = delta.Digest,
                    Pages = [.. before.Pages.Except(delta.Cleared).Concat(delta.Added).OrderBy(page => page.Frame)],
                };
                Check(after);
                _vms[delta.Vm] = after;
                break;
            case DesiredVmRemoved removed:
                Assert.True(_vms.Remove(removed.Vm));
                break;
        }
    }

    /// <summary>Compares with what the control plane has for the host.</summary>
    public void AssertEquals(IReadOnlyCollection<DesiredVm> truth)
    {
        Assert.Equal(truth.Select(vm => vm.Vm).Order(StringComparer.Ordinal), _vms.Keys.Order(StringComparer.Ordinal));
        foreach (var vm in truth)
        {
            var local = _vms[vm.Vm];
            Assert.Equal(vm.Pages, local.Pages);
            Assert.Equal(
                (vm.Generation, vm.MemoryInstance, vm.PlacementEpoch, vm.Digest, vm.Owner, vm.Attach),
                (local.Generation, local.MemoryInstance, local.PlacementEpoch, local.Digest, local.Owner, local.Attach));
            Assert.Equal(vm.Memory, local.Memory);
        }
    }

    private static void Check(DesiredVm vm) => Assert.Equal(PoisonDigest.Compute(vm.Vm, vm.MemoryInstance, vm.Pages), vm.Digest);
}
