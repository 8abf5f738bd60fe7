using System.Text.Json;
using Fleet.HostAgent.State;
using Fleet.Linux;

namespace Fleet.HostAgent.Gate;

/// <summary>The gate records on disk, one file for each VM, never removed: a forgotten seal would let a guest run twice.</summary>
public sealed class GateStore(StateFolder folder)
{
    private readonly Dictionary<string, GateRecord> _records = new(StringComparer.Ordinal);
    private readonly Lock _lock = new();

    public GateRecord Get(string vm)
    {
        lock (_lock)
        {
            if (!_records.TryGetValue(vm, out var record))
            {
                record = Read(vm) ?? new GateRecord(vm);
                _records[vm] = record;
            }

            return record;
        }
    }

    /// <summary>Of every VM that ever had one here.</summary>
    public IReadOnlyList<GateRecord> All() =>
        [.. Directory.EnumerateFiles(folder.Gate, "*.json").Select(path => Get(Path.GetFileNameWithoutExtension(path)))];

    /// <summary>Durable when it returns.</summary>
    public void Save(GateRecord record)
    {
        lock (_lock)
        {
            DurableFile.Write(PathOf(record.Vm), JsonSerializer.SerializeToUtf8Bytes(record, GateJson.Default.GateRecord));
            _records[record.Vm] = record;
        }
    }

    private GateRecord? Read(string vm)
    {
        if (!File.Exists(PathOf(vm)))
        {
            return null;
        }

        return StateFile.Read(PathOf(vm), GateJson.Default.GateRecord, record => record.Vm == vm);
    }

    private string PathOf(string vm) => Path.Combine(folder.Gate, $"{vm}.json");
}
