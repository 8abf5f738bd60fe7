using System.Text.Json;
using System.Text.Json.Serialization;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.HostAgent.State;
using Fleet.Linux;

namespace Fleet.HostAgent.Restore;

/// <summary>
/// The store epoch below which this host refuses everything (GATE.md, "Restore from backup"), and the last incarnation that it was
/// given: on disk, so that no later life of the agent forgets either.
/// </summary>
public sealed class StorePromise
{
    private readonly string _path;
    private PromiseRecord _record;

    public StorePromise(StateFolder folder)
    {
        _path = Path.Combine(folder.Root, "store-epoch");
        _record = File.Exists(_path)
            ? StateFile.Read(_path, PromiseJson.Default.PromiseRecord, _ => true)
            : new PromiseRecord(0, null);
    }

    public long StoreEpoch => Volatile.Read(ref _record).StoreEpoch;

    /// <summary>Null before the first claim.</summary>
    public long? Incarnation => Volatile.Read(ref _record).Incarnation;

    /// <summary>Whether the view is of a store epoch that is refused: it gives no right, no seal, and changes no arms.</summary>
    public bool IsOlder(DesiredVm view) => StoreEpochs.Of(view.PlacementEpoch) < StoreEpoch;

    /// <summary>Durable when it returns.</summary>
    public void Promise(long storeEpoch) => Save(_record with { StoreEpoch = Math.Max(storeEpoch, StoreEpoch) });

    /// <summary>Durable when it returns.</summary>
    public void Claimed(long incarnation) => Save(_record with { Incarnation = incarnation });

    private void Save(PromiseRecord record)
    {
        DurableFile.Write(_path, JsonSerializer.SerializeToUtf8Bytes(record, PromiseJson.Default.PromiseRecord));
        Volatile.Write(ref _record, record);
    }
}

internal sealed record PromiseRecord(long StoreEpoch, long? Incarnation);

[JsonSerializable(typeof(PromiseRecord))]
internal sealed partial class PromiseJson : JsonSerializerContext;
