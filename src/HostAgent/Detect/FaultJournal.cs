using System.Text.Json;
using System.Text.Json.Serialization;
using Fleet.HostAgent.State;
using Fleet.Linux;
using Fleet.Linux.Processes;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Detect;

/// <summary>
/// Which memory errors were reported already, on disk: the next agent finds the same poisoned pages and must not count them again. Physical
/// frames and counters are those of one boot.
/// </summary>
public sealed partial class FaultJournal
{
    private const int MostEntries = 20_000;

    private readonly string _path;
    private readonly ILogger<FaultJournal> _logger;

    public FaultJournal(StateFolder folder, ILogger<FaultJournal> logger)
    {
        (_path, _logger) = (Path.Combine(folder.Root, "faults"), logger);
        Record = Read() switch
        {
            null => new FaultRecord(KernelInfo.BootId, [], [], null),
            { } record when record.BootId != KernelInfo.BootId => record with { BootId = KernelInfo.BootId, Frames = [], Corrected = new Dictionary<string, long>() },
            { } record => record,
        };
    }

    public FaultRecord Record { get; private set; }

    /// <summary>The disk did not take the last record.</summary>
    public bool IsBehind { get; private set; }

    /// <summary>
    /// Durable when it returns, unless the disk is full or failing: then it counts in this life of the agent, and is written with the next. What it
    /// tells of is in the spool already, and must not get there again.
    /// </summary>
    public void Save(FaultRecord record)
    {
        // The oldest go first; of them a second report would be one count too many, and no more.
        Record = record with { Frames = [.. record.Frames.TakeLast(MostEntries)], Pages = [.. record.Pages.TakeLast(MostEntries)] };
        try
        {
            DurableFile.Write(_path, JsonSerializer.SerializeToUtf8Bytes(Record, FaultJson.Default.FaultRecord));
            IsBehind = false;
        }
        catch (IOException exception)
        {
            if (!IsBehind)
            {
                LogBehind(exception.Message);
            }

            IsBehind = true;
        }
    }

    private FaultRecord? Read()
    {
        try
        {
            return File.Exists(_path)
                ? StateFile.Read(_path, FaultJson.Default.FaultRecord, record => record is { BootId: not null, Frames: not null, Pages: not null })
                : null;
        }
        catch (Exception exception) when (exception is InvalidDataException or IOException or UnauthorizedAccessException)
        {
            LogDamaged(exception.Message);
            return null;
        }
    }

    [LoggerMessage(2302, LogLevel.Error, "Which memory errors of this host were reported is not known any more: {Problem}. Those that are found again are counted once more")]
    private partial void LogDamaged(string problem);

    [LoggerMessage(2303, LogLevel.Error, "Which memory errors of this host were reported cannot be written ({Problem}); it is written with the next. After a restart those that are found again would be counted once more")]
    private partial void LogBehind(string problem);
}

/// <param name="Frames">Physical frames whose uncorrected error was reported.</param>
/// <param name="Pages">Pages of VMs for which one was.</param>
/// <param name="Corrected">Last count of each of EDAC's counters; null before the first look of all, empty after a boot.</param>
public sealed record FaultRecord(string BootId, IReadOnlyList<long> Frames, IReadOnlyList<FaultPage> Pages, IReadOnlyDictionary<string, long>? Corrected);

/// <summary>A page in one life of a guest's RAM.</summary>
public sealed record FaultPage(string Vm, long MemoryInstance, long Frame, int Shift);

[JsonSerializable(typeof(FaultRecord))]
internal sealed partial class FaultJson : JsonSerializerContext;
