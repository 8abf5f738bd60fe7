using System.Text.Json;
using System.Text.Json.Serialization;
using Fleet.HostAgent.State;
using Fleet.Linux;
using Fleet.Linux.Processes;

namespace Fleet.HostAgent.Detect;

/// <summary>
/// Which memory errors were reported already, on disk: the next agent finds the same poisoned pages and must not count them again. Physical
/// frames and counters are those of one boot.
/// </summary>
public sealed class FaultJournal
{
    private const int MostEntries = 20_000;

    private readonly string _path;

    public FaultJournal(StateFolder folder)
    {
        _path = Path.Combine(folder.Root, "faults");
        var read = File.Exists(_path) ? JsonSerializer.Deserialize(File.ReadAllBytes(_path), FaultJson.Default.FaultRecord) : null;
        Record = read switch
        {
            null => new FaultRecord(KernelInfo.BootId, [], [], null),
            { } record when record.BootId != KernelInfo.BootId => record with { BootId = KernelInfo.BootId, Frames = [], Corrected = new Dictionary<string, long>() },
            { } record => record,
        };
    }

    public FaultRecord Record { get; private set; }

    /// <summary>Durable when it returns.</summary>
    /// <exception cref="IOException">Disk full or failing.</exception>
    public void Save(FaultRecord record)
    {
        // The oldest go first; of them a second report would be one count too many, and no more.
        var bounded = record with { Frames = [.. record.Frames.TakeLast(MostEntries)], Pages = [.. record.Pages.TakeLast(MostEntries)] };
        DurableFile.Write(_path, JsonSerializer.SerializeToUtf8Bytes(bounded, FaultJson.Default.FaultRecord));
        Record = bounded;
    }
}

/// <param name="Frames">Physical frames whose uncorrected error was reported.</param>
/// <param name="Pages">Pages of VMs for which one was.</param>
/// <param name="Corrected">Last count of each of EDAC's counters; null before the first look of all, empty after a boot.</param>
public sealed record FaultRecord(string BootId, IReadOnlyList<long> Frames, IReadOnlyList<FaultPage> Pages, IReadOnlyDictionary<string, long>? Corrected);

/// <summary>A page in one life of a guest's RAM.</summary>
public sealed record FaultPage(string Vm, long MemoryInstance, long Frame, int Shift);

[JsonSerializable(typeof(FaultRecord))]
internal sealed partial class FaultJson : JsonSerializerContext;
