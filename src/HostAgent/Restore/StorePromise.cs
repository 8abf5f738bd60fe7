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
    private readonly Lock _lock = new();
    private PromiseRecord _record;

    public StorePromise(StateFolder folder)
    {
        _path = Path.Combine(folder.Root, "store-epoch");
        _record = File.Exists(_path)
            ? JsonSerializer.Deserialize(File.ReadAllBytes(_path), PromiseJson.Default.PromiseRecord) ?? throw new InvalidDataException($"{_path} is empty; it was written by another program")
            : new PromiseRecord(0, null);
    }

    public long StoreEpoch => Volatile.Read(ref _record).StoreEpoch;

    /// <summary>Null before the first claim.</summary>
    public long? Incarnation => Volatile.Read(ref _record).Incarnation;

    /// <summary>Newest revision that the control plane answered a report with.</summary>
    public long Revision => Volatile.Read(ref _record).Revision;

    /// <summary>Whether the view is of a store epoch that is refused: it gives no right, no seal, and changes no arms.</summary>
    public bool IsOlder(DesiredVm view) => StoreEpochs.Of(view.PlacementEpoch) < StoreEpoch;

    /// <summary>Durable when it returns.</summary>
    public void Promise(long storeEpoch) => Save(record => record with { StoreEpoch = Math.Max(storeEpoch, record.StoreEpoch) });

    /// <summary>Durable when it returns.</summary>
    public void Claimed(long incarnation) => Save(record => record with { Incarnation = incarnation });

    /// <summary>Durable when it returns. Before a report is forgotten: if the control plane loses it, this number proves it.</summary>
    public void Saw(long revision)
    {
        if (revision > Revision)
        {
            Save(record => record with { Revision = Math.Max(revision, record.Revision) });
        }
    }

    private void Save(Func<PromiseRecord, PromiseRecord> change)
    {
        lock (_lock)
        {
            var record = change(_record);
            DurableFile.Write(_path, JsonSerializer.SerializeToUtf8Bytes(record, PromiseJson.Default.PromiseRecord));
            Volatile.Write(ref _record, record);
        }
    }
}

internal sealed record PromiseRecord(long StoreEpoch, long? Incarnation, long Revision = 0);

[JsonSerializable(typeof(PromiseRecord))]
internal sealed partial class PromiseJson : JsonSerializerContext;
