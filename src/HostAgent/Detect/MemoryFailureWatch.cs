using Fleet.HostAgent.Observe;
using Fleet.HostAgent.Options;
using Fleet.Linux;
using Fleet.Linux.Tracing;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Detect;

/// <summary>
/// Hears the kernel take frames out of use (tracepoint memory_failure_event), in a trace instance of its own so that no flood of other events
/// can push these out. Where the kernel has no such event, looks at the page tables are all there is; it is said as a capability.
/// </summary>
public sealed partial class MemoryFailureWatch(
    DetectionQueue queue, MemoryModules modules, IOptions<AgentOptions> options, ILogger<MemoryFailureWatch> logger) : IDisposable
{
    private readonly EventSignal _stop = new();
    private TraceFs? _fs;
    private TraceInstance? _instance;
    private TracePipe? _pipe;
    private Thread? _thread;

    /// <summary>Once. Never throws: without it detection goes on by looking.</summary>
    public void Start()
    {
        try
        {
            _fs = TraceFs.Open();
            foreach (var name in _fs.RemoveLeftovers(Owner(options.Value)).Concat(_fs.RemoveLeftovers(ObservationProbe.Owner)))
            {
                LogLeftover(name);
            }

            if (MemoryFailureEvent.Names.FirstOrDefault(_fs.HasEvent) is not { } failure)
            {
                LogNone("the kernel has no memory_failure_event");
                return;
            }

            _instance = _fs.Create(Owner(options.Value), "errors");
            _instance.SetBufferSize(64);
            _instance.WakeAtOnce();
            _pipe = _instance.OpenPipe();
            _instance.Enable(failure, null);
            if (_fs.HasEvent(MemoryControllerEvent.Name))
            {
                _instance.Enable(MemoryControllerEvent.Name, null);
            }

            _thread = new Thread(Run) { IsBackground = true, Name = "memory-failures" };
            _thread.Start();
        }
        catch (LinuxException exception)
        {
            LogNone(exception.Message);
        }
    }

    public static string Owner(AgentOptions options) => $"fleet-{options.Host}";

    public void Dispose()
    {
        _stop.Set();
        _thread?.Join();
        _pipe?.Dispose();
        _instance?.Dispose();
        _fs?.Dispose();
        _stop.Dispose();
    }

    private void Run()
    {
        try
        {
            while (_pipe!.Wait(_stop))
            {
                Take(_pipe.ReadLines());
            }
        }
        catch (LinuxException exception)
        {
            LogNone(exception.Message);
        }
    }

    private void Take(IReadOnlyList<string> lines)
    {
        var parsed = lines.Select(TraceLine.Parse).OfType<TraceLine>().ToList();
        foreach (var sighting in parsed.Where(line => line.Event == MemoryControllerEvent.Name.Name).Select(line => MemoryControllerEvent.Parse(line.Fields)).OfType<MemoryControllerEvent>())
        {
            modules.Saw(sighting);
        }

        var told = parsed.Where(line => MemoryFailureEvent.Names.Any(name => name.Name == line.Event)).Select(line => MemoryFailureEvent.Parse(line.Fields)).ToList();
        if (told.Contains(null) || lines.Any(line => TraceLine.ParseLost(line) > 0))
        {
            // Lost, or of a kernel that words it otherwise: something failed, and the page tables tell what.
            queue.AddAll();
        }

        if (told.OfType<MemoryFailureEvent>().ToList() is { Count: > 0 } errors)
        {
            queue.Add(errors);
        }
    }

    [LoggerMessage(1901, LogLevel.Information, "Memory errors of this host are found by looks at page tables and by what VMMs say: {Reason}")]
    private partial void LogNone(string reason);

    [LoggerMessage(1902, LogLevel.Information, "The trace instance {Name} of an agent that is gone was removed")]
    private partial void LogLeftover(string name);
}
